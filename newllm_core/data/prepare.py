"""`prepare`: from a source to a folder of token files. Same input and options, same bytes."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from newllm_core.config import DataConfig
from newllm_core.data.dataset_info import INFO_FILE, TOKENIZER_FILE, DatasetInfo, SourceInfo
from newllm_core.data.division import divide
from newllm_core.data.documents import Documents, Selection
from newllm_core.data.losses import warn_of_losses
from newllm_core.data.make_tokenizer import load_base, train_bpe
from newllm_core.data.measures import contents, count_bytes
from newllm_core.data.pieces import cut_at_words
from newllm_core.data.policy import ValidationPolicy
from newllm_core.data.publish import NEW, publishing
from newllm_core.data.sources.base import Broken, DataSource, Document
from newllm_core.data.split_encoder import SplitEncoder
from newllm_core.data.spool import Spool
from newllm_core.data.token_files import smallest_dtype, write_text
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError, PluginError, reason
from newllm_core.plugins import registry
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.settings import make_section

# The trainer buffers 256 texts, so long ones are cut.
TRAINING_PIECE_CHARACTERS = 1 << 16


@dataclass(frozen=True)
class _OpenSource:
    source: DataSource
    info: SourceInfo
    plugin: registry.Plugin

    def __str__(self) -> str:
        place = f" ({self.info.input})" if self.info.input is not None else ""
        return f"source {self.info.name}{place}"


def prepare(
    config: DataConfig,
    source_options: Mapping[str, Any],
    out: Path,
    *,
    seed: int,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> DatasetInfo:
    """Read the sources of `config` and write a prepared data set to the folder `out`.

    Args:
        config: the data section.
        source_options: the source's own options; a validation source of the same name shares them.
        out: a new folder, which appears only when everything is written.
        seed: of the choice of held-out documents.
        overwrite: replace `out` if it is a prepared data set.
        progress: who is told.

    Returns:
        What was written to `dataset.json`.

    Raises:
        ConfigError: an unknown source or option.
        InputError: an input cannot be read or divided, or `out` is in the way.
        PluginError: a source cannot be loaded or breaks its contract.
    """
    watcher: Progress = progress or Silent()
    train_source = _open(config.source, config.input, source_options)
    val_source = None
    if config.val_source is not None or config.val_input is not None:
        name = config.val_source or config.source
        val_source = _open(name, config.val_input, source_options if name == config.source else {})
    base = load_base(config)
    with (
        publishing(out, overwrite=overwrite) as work,
        closing(Spool(work / "spool", seed)) as spool,
    ):
        documents, broken = _read(train_source, spool, config, watcher)
        separate = None
        if val_source is not None:
            separate, more_broken = _read(val_source, spool, config, watcher)
            broken += more_broken
        division = divide(documents, separate, config.val_fraction, config.test_fraction)
        if base is None:
            tokenizer = _train_tokenizer(config, spool, division.train, watcher)
        else:
            tokenizer = TextTokenizer.adopt(base, spool.roles)
        folder = work / NEW
        encoder = SplitEncoder(folder, spool, tokenizer, watcher, config.min_space_share)
        train, seen = encoder.write_whole("train", division.train, str(train_source))
        policy = ValidationPolicy(config.val_token_policy, tokenizer, seen)
        validation, unmasked = encoder.write_validation(
            division, policy, str(val_source or train_source)
        )
        test = None
        if division.test is not None:
            test, _ = encoder.write_whole("test", division.test, str(train_source))
        files = {TOKENIZER_FILE: write_text(folder / TOKENIZER_FILE, tokenizer.to_json())}
        for written in filter(None, (train, validation, test)):
            files |= written.files
        info = DatasetInfo(
            dtype=smallest_dtype(tokenizer.vocab_size),
            vocab_size=tokenizer.vocab_size,
            base_vocab_size=tokenizer.base_vocab_size,
            end_id=tokenizer.end_id,
            roles=tokenizer.role_ids,
            train=train.info,
            validation=validation.info,
            policy=policy.report(),
            duplicates_dropped=division.duplicates_dropped + unmasked,
            source=train_source.info,
            val_source=None if val_source is None else val_source.info,
            data=dataclasses.asdict(config),
            seed=seed,
            files=files,
            broken=broken,
            test=None if test is None else test.info,
        )
        write_text(folder / INFO_FILE, info.to_json())
    _tell(info, watcher)
    return info


def _open(name: str, given: str | None, options: Mapping[str, Any]) -> _OpenSource:
    plugin = registry.DATA_SOURCES.find(name)
    source_type: type[DataSource] = registry.DATA_SOURCES.load(name)
    section = make_section(source_type.Options, "source", options)
    shown = dataclasses.asdict(section)
    info = SourceInfo(name, given, shown, plugin.distribution, plugin.version)
    with registry.DATA_SOURCES.blame(name):
        return _OpenSource(source_type(given, section), info, plugin)


def _documents(opened: _OpenSource) -> Iterator[Document | Broken]:
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
            raise InputError(f"{opened}: {reason(error)}") from error


def _read(
    opened: _OpenSource, spool: Spool, config: DataConfig, progress: Progress
) -> tuple[Documents, int]:
    """The documents of a source, which are in the spool afterwards, and how many were broken."""
    count = broken = 0
    first = ""
    most = config.max_documents
    with progress.task(f"reading {opened}", most, "documents") as task:
        for document in _documents(opened):
            if isinstance(document, Broken):
                first = first or document.problem
                broken += 1
            elif _append(spool, document, opened):
                count += 1
                task.advance(1)
                if count == most:
                    break
    if broken:
        _judge(opened, broken, count, first, config, progress)
    if not count:
        raise InputError(f"{opened} gave no documents with any text")
    try:
        return spool.finish(), broken
    except PluginError as error:
        raise PluginError(f"{opened} of {opened.plugin.origin}: {error}") from error


def _append(spool: Spool, document: Document, opened: _OpenSource) -> bool:
    try:
        return spool.append(document)
    except InputError as error:
        raise InputError(f"{opened}: {error}") from error
    except PluginError as error:
        raise PluginError(f"{opened} of {opened.plugin.origin}: {error}") from error


def _judge(
    opened: _OpenSource,
    broken: int,
    count: int,
    first: str,
    config: DataConfig,
    progress: Progress,
) -> None:
    """Report rows that were left out.

    Raises:
        InputError: there are too many of them.
    """
    share = broken / (broken + count)
    found = f"{opened}: {broken:,} of {broken + count:,} rows are broken ({share:.2%})"
    if share > config.max_broken_share:
        raise InputError(
            f"{found}, more than data.max_broken_share {config.max_broken_share:.2%}: mend them or "
            f"raise it; the first: {first}"
        )
    progress.warning(f"{found} and left out; the first: {first}")


def _train_tokenizer(
    config: DataConfig, spool: Spool, train: Selection, progress: Progress
) -> TextTokenizer:
    size, most = train.size, config.tokenizer_bytes
    taken = f"{most:,} of {size:,}" if size > most else f"{size:,}"
    progress.message(f"training a tokenizer on {len(train):,} documents, {taken} bytes")
    num_texts = 0

    def texts() -> Iterator[str]:
        nonlocal num_texts
        due = 0.0
        with progress.task("training the tokenizer", min(size, most), "bytes") as task:
            for document in spool.documents(train, _pieces):
                for text in contents(document):
                    num_texts += 1
                    for piece in _pieces([text]):
                        length = count_bytes(piece)
                        # Evenly spread: as much as is due by now, and no more than one piece ahead.
                        due += length * min(1.0, most / size)
                        if due > 0:
                            due -= length
                            yield piece
                            task.advance(length)

    tokenizer = train_bpe(texts(), config.vocab_size, spool.roles)
    if not num_texts:
        raise InputError(
            f"source {config.source} has no text to train a bpe on: give the tokenizer of its ids "
            "with --tokenizer tokenizer.json"
        )
    return tokenizer


def _pieces(chunks: Iterable[str]) -> Iterator[str]:
    return cut_at_words(chunks, TRAINING_PIECE_CHARACTERS, TRAINING_PIECE_CHARACTERS)


def _tell(info: DatasetInfo, progress: Progress) -> None:
    warn_of_losses(info.splits, progress)
    if info.duplicates_dropped:
        progress.message(
            f"dropped {info.duplicates_dropped:,} held-out documents that are in another split too"
        )
    report = info.policy
    if report.policy == "drop" and report.dropped_lines:
        progress.message(
            f"dropped {report.dropped_line_share:.2%} of validation lines"
            + (f" ({report.dropped_byte_share:.2%} of bytes)" if report.bytes else "")
            + f" with {report.unseen_types:,} token types that train lacks"
        )
    elif report.unseen_types:
        progress.warning(
            f"validation has {report.unseen_types:,} token types that train lacks, and keeps them"
        )
