"""Text in, text out, on top of a session's tokens."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from newllm_core.data.sources.decoding import unicode_text
from newllm_core.data.text_stream import text_stream
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.generation.session import Session


@dataclass(frozen=True)
class Tail:
    """The end of a text that is not out yet.

    Attributes:
        undecoded: state of a text stream: tokens of a character that is not finished.
        held: what may be the beginning of a stop string.
    """

    undecoded: Sequence[int] = ()
    held: str = ""


class StopStrings:
    """Lets a text through but for what may be the beginning of a stop string.

    The first of `strings` to be complete ends the text before it; it is `found` then. What is not
    let through yet is `held`, at first what another one held back.
    """

    def __init__(self, strings: Sequence[str], held: str = "") -> None:
        self._strings = strings
        self._longest = max(map(len, strings), default=0)
        self.held = held
        self.found: str | None = None

    def push(self, text: str) -> str:
        """Return what is certain to come before any stop string, now that `text` came too."""
        text = self.held + text
        # The first to be complete counts, as if every character had come alone.
        found = [(text.find(stop), stop) for stop in self._strings if stop in text]
        if found:
            begin, self.found = min(found, key=lambda place: (place[0] + len(place[1]), place[0]))
            self.held = ""
            return text[:begin]
        places = range(max(0, len(text) - self._longest + 1), len(text))
        begun = (p for p in places if any(stop.startswith(text[p:]) for stop in self._strings))
        end = next(begun, len(text))
        self.held = text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return what was held back: the text is over, so it is none of a stop string."""
        text, self.held = self.held, ""
        return text


class Writer:
    """Writes one text: whole characters, up to a stop string, piece by piece.

    `stop` are strings that end the text before them, `tail` is what is left of the text before if
    this goes on with it.

    Attributes:
        num_tokens: chosen so far.
        finish_reason: why the last `write` ended: "length" (so many tokens were asked for), "stop"
            (a stop string) or "end" (a token that ends the text).
    """

    def __init__(
        self,
        session: Session,
        tokenizer: TextTokenizer,
        stop: Sequence[str] = (),
        tail: Tail | None = None,
    ) -> None:
        tail = tail or Tail()
        self._session = session
        self._tokenizer = tokenizer
        self._decoded = text_stream(tokenizer, tail.undecoded)
        self._stop = StopStrings(stop, tail.held)
        self.num_tokens = 0
        self.finish_reason = ""

    @property
    def tail(self) -> Tail:
        """Return what `write` has not let out yet."""
        return Tail(self._decoded.state(), self._stop.held)

    def read(self, ids: Sequence[int]) -> None:
        """Read a prompt; what is written next follows it."""
        self._session.read(ids)
        self._decoded.follow(ids)

    def write(
        self, limit: int, ends: Collection[int], record: list[int] | None = None
    ) -> Iterator[str]:
        """Yield text as soon as it is certain, "" included, once for each token at least.

        At most `limit` tokens are chosen, each of which goes to `record` too. One of `ends` ends
        the text and has no text itself. What may still become a stop string stays in `tail`: see
        `finish`.
        """
        yield self._stop.push("")
        self.finish_reason = "length"
        if self._stop.found is None:
            for token in self._session.choose(limit, ends):
                self.num_tokens += 1
                if record is not None:
                    record.append(token)
                yield self._stop.push(self._decoded.push(token))
                if self._stop.found is not None:
                    break
        if self._stop.found is not None:
            self.finish_reason = "stop"
        elif self._session.pending in ends:
            self.finish_reason = "end"

    def finish(self) -> str:
        """Return the rest of the text, now that it is over; an unfinished character is no text."""
        return self._stop.flush()


def encode_prompt(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Return ids of a prompt; `InputError` if it is not Unicode text."""
    return tokenizer.encode(unicode_text(text, "the prompt"))
