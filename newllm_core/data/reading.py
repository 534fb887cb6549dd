"""From a source into the spool: its documents, and what is said of them."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from newllm_core.config import DataConfig
from newllm_core.data.dataset_info import SourceInfo
from newllm_core.data.sources.base import Broken, DataSource, Document, Note
from newllm_core.data.spool import Spool
from newllm_core.errors import InputError, PluginError, reason
from newllm_core.files.escapes import escaped
from newllm_core.plugins import registry
from newllm_core.plugins.plugin import Plugin
from newllm_core.runtime.progress import Progress

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class OpenSource:
    """A source with its input and options; as text it is named for messages."""

    source: DataSource
    info: SourceInfo
    plugin: Plugin

    def __str__(self) -> str:
        place = f" ({self.info.input})" if self.info.input is not None else ""
        return f"source {self.info.name}{place}"


def open_source(name: str, given: str | None, options: Mapping[str, Any]) -> OpenSource:
    """Make the source `name` with its input and options; nothing is read."""
    plugin = registry.DATA_SOURCES.find(name)
    (source,), chosen = registry.DATA_SOURCES.make(name, options, given)
    info = SourceInfo(name, escaped(given), escaped(chosen), plugin.distribution, plugin.version)
    return OpenSource(source, info, plugin)


def _documents(opened: OpenSource) -> Iterator[Document | Broken | Note]:
    with registry.DATA_SOURCES.blame(opened.info.name):
        try:
            found = opened.source.documents()
            if found is None:
                raise PluginError(
                    f"{opened} of {opened.plugin.origin}: documents() returned None: yield "
                    "documents"
                )
            yield from found
        except OSError as error:
            said = reason(error) if opened.plugin.is_own else opened.plugin.raised(error)
            raise InputError(f"{opened}: {said}") from error


def read_source(
    opened: OpenSource, spool: Spool, config: DataConfig, progress: Progress
) -> "tuple[np.ndarray, int, int]":
    """Read a source into the spool; say its documents, and how many were broken or blank."""
    counts: Counter[str | None] = Counter()  # of each split
    notes: Counter[str] = Counter()
    broken = blank = 0
    first = ""
    most = config.max_documents
    with progress.task(f"reading {opened}", most, "documents") as task:
        for document in _documents(opened):
            split = getattr(document, "split", None)
            if isinstance(document, Note):
                notes[document.text] += 1
            elif isinstance(document, Broken):
                first = first or document.problem
                broken += 1
            elif counts[split] == most:
                pass
            elif _append(spool, document, opened):
                counts[split] += 1
                task.advance(1)
                if counts[split] == most and split in (None, "train"):
                    break
            elif not document.continues:
                blank += 1
    for text, times in notes.items():
        progress.message(f"{opened}: {text}" + (f" ({times:,} times)" if times > 1 else ""))
    count = counts.total()
    if broken:
        share = broken / (broken + count)
        found = f"{opened}: {broken:,} of {broken + count:,} rows are broken ({share:.2%})"
        if share > config.max_broken_share:
            raise InputError(
                f"{found}, more than data.max_broken_share {config.max_broken_share:.2%}: mend "
                f"them or raise it; the first: {first}"
            )
        progress.warning(f"{found} and left out; the first: {first}")
    if blank:
        progress.message(f"{opened}: left out {blank:,} documents without any text")
    if not count:
        raise InputError(f"{opened} gave no documents with any text")
    try:
        return spool.finish(), broken, blank
    except PluginError as error:
        raise PluginError(f"{opened} of {opened.plugin.origin}: {error}") from error


def _append(spool: Spool, document: Document, opened: OpenSource) -> bool:
    try:
        return spool.append(document)
    except InputError as error:
        raise InputError(f"{opened}: {error}") from error
    except PluginError as error:
        raise PluginError(f"{opened} of {opened.plugin.origin}: {error}") from error
