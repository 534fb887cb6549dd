"""What a data source is. To write one, extend `DataSource` and register it as an entry point."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from newllm_core.config.option import NoOptions

Split = Literal["train", "validation", "test"]


class Message(NamedTuple):
    """One turn of a chat."""

    role: str
    content: str


@dataclass(frozen=True)
class Document:
    """One unit of text that is wholly train, wholly validation or wholly test.

    Exactly one of `text`, `messages`, `tokens` is given. `split` is set by sources whose data
    comes divided already; None leaves the choice to `prepare`. A text or tokens too long to hold
    come in parts: `continues` says that the next document yielded goes on where this one ends.
    """

    text: str | None = None
    messages: tuple[Message, ...] | None = None
    tokens: tuple[int, ...] | None = None
    split: Split | None = None
    continues: bool = False


@dataclass(frozen=True)
class Broken:
    """What a source yields in place of a document that it cannot read, such as a damaged line.

    `prepare` leaves it out, reports it, and stops if there are too many. `problem` says to people
    where it is and what is wrong.
    """

    problem: str


@dataclass(frozen=True)
class Note:
    """Something that people should know of what is read; `prepare` says it once, and how often.

    Its `text` is the same for every document that it is true of.
    """

    text: str


class DataSource(ABC):
    """Yields documents. Making one reads nothing; `documents` reads lazily, in a fixed order.

    Where data comes divided, held-out documents come first: `data.max_documents` ends the reading
    as soon as there are enough to train on.

    Attributes:
        Options: frozen dataclass of options (`newllm_core.config.option` documents a field).
        input: file or folder given by the user, or None.
    """

    Options: ClassVar[type[Any]] = NoOptions

    def __init__(self, input: str | None = None, options: Any = None) -> None:  # noqa: ANN401
        self.input = input
        self.options = self.Options() if options is None else options

    @abstractmethod
    def documents(self) -> Iterator[Document | Broken | Note]:
        """Yield every document; `InputError` for an input that cannot be read."""
