"""A text on a terminal or a pipe, as it is written."""

import signal
import sys
import time
from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

from rich.text import Text

from newllm_cli.output import plain_console
from newllm_cli.progress import StderrProgress
from newllm_core.generation.writer import Writer
from newllm_core.runtime.interruption import Interruption

# A prompt is read so many tokens at a time between two looks at the clock.
READ_AT_ONCE = 1024


def continue_text(
    writer: Writer, limit: int, end_id: int, *, before: str, keep_tail: bool, show: bool
) -> tuple[dict[str, Any], bool]:
    """Write up to `limit` tokens of text, or until Ctrl-C.

    Args:
        writer: where the text is.
        limit: at most so many tokens.
        end_id: the token that ends the text.
        before: text that comes first.
        keep_tail: leave what is not certain for somebody who goes on from here.
        show: print the text as it comes, and keep nothing of it. On a pipe stdout gets the text
            and nothing else, not even a line end.

    Returns:
        `text` and `tokens` (empty and None if shown), `num_tokens` and `finish_reason`; and
        whether Ctrl-C ended it.
    """
    pieces: list[str] = []
    tokens: list[int] | None = None if show else []
    put = partial(print, end="", flush=True) if show else pieces.append
    began = time.perf_counter()
    with Interruption((signal.SIGINT,)) as interruption:
        for piece in chain([before], writer.write(limit, {end_id}, tokens)):
            put(piece)
            if interruption.asked:
                break
    if not keep_tail:
        put(writer.finish())
    seconds = time.perf_counter() - began
    if show and sys.stdout.isatty():
        print()
    if writer.num_tokens:
        rate = writer.num_tokens / seconds
        StderrProgress().message(f"{writer.num_tokens:,} tokens at {rate:,.0f} tokens/s")
    elif limit and writer.finish_reason == "end":
        StderrProgress().message("the text has ended: a --prompt begins another one behind it")
    result = {
        "text": "".join(pieces),
        "tokens": tokens,
        "num_tokens": writer.num_tokens,
        "finish_reason": writer.finish_reason,
    }
    return result, interruption.asked


def read_prompt(writer: Writer, prompt: str, ids: Sequence[int], *, show: bool) -> None:
    """Read a prompt, and repeat it on a terminal."""
    with StderrProgress().task("reading the prompt", len(ids), "tokens") as task:
        for begin in range(0, len(ids), READ_AT_ONCE):
            part = ids[begin : begin + READ_AT_ONCE]
            writer.read(part)
            task.advance(len(part))
    if show and sys.stdout.isatty():
        plain_console().print(Text(prompt, "bold"), end="", soft_wrap=True)
