"""A conversation on a terminal or a pipe: lines in, replies out."""

import contextlib
import sys
from collections.abc import Iterator

from newllm_cli.output import write_through
from newllm_cli.signals import Interrupt
from newllm_core.data.sources.files import BYTE_ORDER_MARK
from newllm_core.errors import InputError
from newllm_core.generation.chat import USER, Chat

PROMPT = "> "
QUIT = "/quit"


class Conversation:
    """Answers every line of stdin that is not blank, until `/quit`, its end or Ctrl-C.

    Args:
        chat: who answers.
        show: print replies as they come.

    Attributes:
        messages: what was said so far, in the form of chat data.
        interrupted: Ctrl-C ended it.
    """

    def __init__(self, chat: Chat, *, show: bool) -> None:
        self._chat = chat
        self._show = show
        self.messages: list[dict[str, str]] = []
        self.interrupted = False

    def run(self) -> None:
        """Talk until the end.

        Raises:
            InputError: stdin is not UTF-8.
        """
        try:
            for message in _lines():
                self._answer(message)
                if self.interrupted:
                    return
        except KeyboardInterrupt:  # while waiting for a line
            self.interrupted = True

    def _answer(self, message: str) -> None:
        self.messages.append({"role": USER, "content": message})
        reply = []
        with Interrupt() as interrupt:
            for piece in self._chat.reply(message):
                reply.append(piece)
                self._put(piece)
                if interrupt.asked:
                    self.interrupted = True
                    break
        self._put("\n")
        self.messages.append({"role": self._chat.answers, "content": "".join(reply)})

    def _put(self, text: str) -> None:
        if self._show:
            write_through(text)


def _lines() -> Iterator[str]:
    """Yield lines that are no command and not blank."""
    terminal = sys.stdin.isatty() and sys.stdout.isatty()
    if terminal:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - lines can be edited from now on
        print(f"{QUIT} or Ctrl-D ends the conversation", file=sys.stderr)
    first = True
    while True:
        try:
            line = input(PROMPT) if terminal else sys.stdin.readline()
        except EOFError:
            print()
            return
        except UnicodeDecodeError as error:
            raise InputError(f"stdin is not UTF-8: {error.reason}; convert it to UTF-8") from error
        if first:
            line, first = line.removeprefix(BYTE_ORDER_MARK), False
        if (not terminal and not line) or line.strip() == QUIT:
            return
        if line.strip():
            yield line.rstrip("\r\n")
