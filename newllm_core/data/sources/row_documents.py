"""What a row of a data set says: a text, or a chat in one of three spellings."""

from collections.abc import Iterable, Iterator
from itertools import chain, islice

from newllm_core.data.sources.base import Broken, Document, Message, Note, Split
from newllm_core.data.sources.json_rows import Row, kind_of
from newllm_core.errors import reason

# Who speaks, as ShareGPT and others write it.
ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
CHATS = ("messages", "conversations")
INSTRUCTION, INPUT, OUTPUT = "instruction", "input", "output"
TEXT = "text"
# So many rows are looked at before a column is guessed.
LOOKED_AT = 100

# A row, the name of its file, its number in it from 1, and the split of the file.
Placed = tuple[Row | Broken, str, int, Split | None]


class _BadRowError(Exception):
    """Says why a row cannot be read."""


def documents_of(
    rows: Iterable[Placed], *, column: str | None = None, only_chats: bool = False
) -> Iterator[Document | Broken | Note]:
    """Turn rows of one data set into documents; if `only_chats`, texts are broken.

    `column` has the texts. Without one, a row is a chat or has a `text`; where the first rows have
    neither, but one column of texts alone, it is that.
    """
    if column is None and not only_chats:
        rows = iter(rows)
        first = list(islice(rows, LOOKED_AT))
        rows = chain(first, rows)
        column = _guess([row for row, *_ in first if not isinstance(row, Broken)])
        if column is not None:
            yield Note(f"documents are the column {column!r}, the only one of texts")
    for row, name, number, split in rows:
        if isinstance(row, Broken):
            yield row
            continue
        notes: set[str] = set()
        try:
            document = _document(row, column, only_chats, split, notes)
        except _BadRowError as error:
            yield Broken(f"{name}: row {number} {error}")
            continue
        yield from map(Note, sorted(notes))
        yield document


def _guess(rows: list[Row]) -> str | None:
    """Return the only column of texts, unless rows say by their columns what they are."""
    if any(_chat_column(row) or _is_instruction(row) or TEXT in row for row in rows):
        return None
    columns = dict.fromkeys(key for row in rows for key in row)
    of_texts = [
        key
        for key in columns
        if all(isinstance(row.get(key), str | bytes | None) for row in rows)
        and any(_is_text(row.get(key)) for row in rows)
    ]
    return of_texts[0] if len(of_texts) == 1 else None


def _is_text(value: object) -> bool:
    """Say whether a value is text, or bytes that are text, and not blank."""
    value = _decoded(value)
    return isinstance(value, str) and bool(value.strip())


def _decoded(value: object) -> object:
    """Return bytes that are UTF-8 as text: parquet files may not say that a column is text."""
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def _chat_column(row: Row) -> str | None:
    return next((key for key in CHATS if row.get(key) is not None), None)


def _is_instruction(row: Row) -> bool:
    return row.get(INSTRUCTION) is not None and OUTPUT in row


def _document(
    row: Row, column: str | None, only_chats: bool, split: Split | None, notes: set[str]
) -> Document:
    if column is not None:
        return Document(text=_text(row, column), split=split)
    if (key := _chat_column(row)) is not None:
        turns = row[key]
        if not isinstance(turns, list):
            raise _BadRowError(f"has no list {key!r}: it is {kind_of(turns)}")
        return Document(messages=tuple(_message(turn, notes) for turn in turns), split=split)
    if _is_instruction(row):
        asked = [_text(row, INSTRUCTION)] + ([_text(row, INPUT)] if row.get(INPUT) else [])
        chat = Message("user", "\n\n".join(asked)), Message("assistant", _text(row, OUTPUT))
        return Document(messages=chat, split=split)
    if only_chats or TEXT not in row:
        texts = "" if only_chats else f", and no {TEXT!r}: set source.text=COLUMN"
        raise _BadRowError(f"has no list 'messages' or 'conversations'{texts} ({_has(row)})")
    return Document(text=_text(row, TEXT), split=split)


def _has(row: Row) -> str:
    """Name the columns of a row, as `source.text` does."""
    nested = ((key, value if isinstance(value, dict) else {}) for key, value in row.items())
    names = (name for key, inner in nested for name in [f"{key}.{part}" for part in inner] or [key])
    return f"it has {', '.join(names) or 'nothing'}"


def _text(row: Row, key: str) -> str:
    value: object = row
    for name in [key] if key in row else key.split("."):
        if not isinstance(value, dict) or name not in value:
            raise _BadRowError(f"has no column {key!r} ({_has(row)})")
        value = value[name]
    return _unicode(value, repr(key))


def _unicode(value: object, what: str) -> str:
    if isinstance(value, Exception):  # see `arrow_rows`
        raise _BadRowError(f"has {what} that cannot be read: {reason(value)}")
    value = _decoded(value)
    if isinstance(value, bytes):
        raise _BadRowError(f"has {what} that is bytes, which are not UTF-8")
    if not isinstance(value, str):
        raise _BadRowError(f"has {what} that is {kind_of(value)}, expected text")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        found = ascii(value[error.start])
        raise _BadRowError(
            f"has {found} in {what}: half a surrogate pair, or a byte of another encoding "
            "(set source.encoding)"
        ) from error
    return value


def _message(turn: object, notes: set[str]) -> Message:
    if not isinstance(turn, dict):
        raise _BadRowError(f"has a message that is {kind_of(turn)}, without a 'role'")
    role, content = (
        next((turn[key] for key in keys if turn.get(key) is not None), None)
        for keys in (("role", "from"), ("content", "value"))
    )
    if role is None or role == "":
        raise _BadRowError("has a message whose 'role' is empty")
    role = _unicode(role, "a message with a 'role'")
    if role in ROLES:
        notes.add(f"the role {role!r} is read as {ROLES[role]!r}")
        role = ROLES[role]
    if turn.get("tool_calls") or turn.get("function_call"):
        notes.add("tool calls are left out of chats")
        content = "" if content is None else content
    if isinstance(content, list):
        content = "".join(_parts(content, notes))
    return Message(role, _unicode(content, "a message with 'content'"))


def _parts(parts: list[object], notes: set[str]) -> Iterator[str]:
    """Yield the texts among the parts of a message."""
    for part in parts:
        if not isinstance(part, dict):
            raise _BadRowError(f"has a part of a message that is {kind_of(part)}")
        if part.get("type") == "text":
            yield _unicode(part.get("text"), "a part of a message with 'text'")
        else:
            notes.add("parts of messages that are no text are left out")
