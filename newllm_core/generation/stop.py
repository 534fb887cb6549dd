"""Ending a text at a string, wherever its tokens begin and end."""

from collections.abc import Sequence


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
        end = len(text)
        for length in range(min(self._longest - 1, len(text)), 0, -1):
            tail = text[len(text) - length :]
            if any(stop.startswith(tail) for stop in self._strings):
                end -= length
                break
        self.held = text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return what was held back: the text is over, so it is none of a stop string."""
        text, self.held = self.held, ""
        return text
