"""A conversation on a terminal or a pipe: lines in, replies out."""

import contextlib
import signal
import sys
from collections.abc import Iterator

from newllm_core.data.sources.decoding import BYTE_ORDER_MARK
from newllm_core.errors import InputError
from newllm_core.generation.chat import USER, Chat
from newllm_core.runtime.interruption import Interruption

PROMPT = "> "
QUIT = "/quit"


def converse(chat: Chat, *, show: bool) -> tuple[list[dict[str, str]], bool]:
    """Answer every line of stdin that is not blank, until `/quit`, its end or Ctrl-C.

    With `show` replies are printed as they come. Returns what was said, in the form of chat data,
    and whether Ctrl-C ended it.

    Raises:
        InputError: stdin is not UTF-8.
    """
    said: list[dict[str, str]] = []
    try:
        for message in _lines():
            said.append({"role": USER, "content": message})
            reply = []
            with Interruption((signal.SIGINT,)) as interruption:
                for piece in chat.reply(message):
                    reply.append(piece)
                    if show:
                        print(piece, end="", flush=True)
                    if interruption.asked:
                        break
            if show:
                print(flush=True)
            said.append({"role": chat.answers, "content": "".join(reply)})
            if interruption.asked:
                return said, True
    except KeyboardInterrupt:  # while waiting for a line
        return said, True
    return said, False


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
