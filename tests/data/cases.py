"""What several tests need: watching progress, checking errors, calling `prepare` briefly."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from newllm_core.config import Config, DataConfig, RunConfig
from newllm_core.data.dataset_info import DatasetInfo
from newllm_core.data.prepare import prepare
from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources.base import DataSource, Note
from newllm_core.data.sources.rows import Rows
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import UserError

# How texts are separated into documents.
BLANK, BAR = {"document_separator": r"\n\n"}, {"document_separator": "|"}


class Recorder:
    """Progress that remembers."""

    def __init__(self):
        self.messages = []
        self.warnings = []
        self.done = {}

    def message(self, text):
        self.messages.append(text)

    def warning(self, text):
        self.warnings.append(text)

    @contextmanager
    def task(self, label, total, unit):
        self.done[label] = [0, total, unit]
        yield _RecorderTask(self.done[label])


class _RecorderTask:
    def __init__(self, counts):
        self.counts = counts

    def advance(self, amount, note=""):
        self.counts[0] += amount


@contextmanager
def assert_one_line_error(kind: type[UserError], *parts: str) -> Iterator[None]:
    """The body raises `kind`, and its message is one line that has every part."""
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    for part in parts:
        assert str(part) in message


def read(source: type[DataSource], path: Path | str, **options) -> list:
    """All that a source yields."""
    return list(source(str(path), source.Options(**options)).documents())


def run(
    out: Path, options=None, *, seed=0, overwrite=False, progress=None, keep=False, **data
) -> DatasetInfo:
    """`prepare` a text file with a byte-sized vocabulary unless told otherwise.

    `keep` is short for a policy that is seldom the point.
    """
    data = {"source": "text-file"} | data
    if "tokenizer" not in data:
        data["vocab_size"] = data.get("vocab_size", 300)
    if keep:
        data["val_token_policy"] = "keep"
    section = DataConfig(**{key: str(v) if isinstance(v, Path) else v for key, v in data.items()})
    config = Config(data=section, source=options or {}, run=RunConfig(seed=seed))
    return prepare(config, out, overwrite=overwrite, progress=progress)


def documents_of(folder: Path, written=TextTokenizer.decode) -> list[list[str]]:
    """The documents of every split of a prepared folder, as `written(tokenizer, ids)`."""
    dataset = open_dataset(folder)
    tokenizer = TextTokenizer.from_json(dataset.tokenizer_json)
    return [
        [
            written(tokenizer, split.tokens[start:end].tolist())
            for start, end in pairwise(split.document_starts)
        ]
        for split in map(dataset.split, dataset.info.splits)
    ]


def spelled_out(tokenizer, ids) -> str:
    """The text of ids, with the end token and roles written out."""
    names = {number: f"<|{role}|>" for role, number in tokenizer.role_ids.items()}
    names[tokenizer.end_id] = "<|endoftext|>"
    return "".join(
        "".join(map(names.get, part)) if control else tokenizer.decode(list(part))
        for control, part in groupby(ids, names.__contains__)
    )


def encode_document(tokenizer, document) -> list[int]:
    return tokenizer.encode_documents([document])[0].tolist()


def contents_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def write(path: Path, content: str | bytes) -> Path:
    """Write a file and the folders that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return path


def joined(parts: Iterable[tuple[str, bool]]) -> list[str]:
    """Texts that came in parts; each part says whether it is the last of its text."""
    texts, begun = [], ""
    for part, ends in parts:
        begun += part
        if ends:
            texts.append(begun)
            begun = ""
    assert not begun
    return texts


def found(path, **options):
    """All documents and broken rows that `rows` yields."""
    return [found for found in read(Rows, path, **options) if not isinstance(found, Note)]


def word_level(*words, splitter=None):
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = splitter or pre_tokenizers.WhitespaceSplit()
    return tokenizer
