"""The `tokenizers` library, kept from harm by a `tokenizer.json` that somebody else made.

Such a file is a program: its rules may take any amount of memory or time, and the library, which is
written in Rust, panics at some of them with pages of text on stderr.
"""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from newllm_core.errors import InputError, reason

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Rules that put text in the place of text may multiply its length at most by this, all together.
MOST_GROWTH = 64
LARGEST_ID = 1 << 24
# Of two that exchange it at a time, one would leave stderr closed for good.
_ONE_THREAD = threading.RLock()
PANIC = "PanicException"  # no subclass of Exception, and in no module that can be imported


@contextmanager
def panics_contained(trusted: bool = False) -> Iterator[None]:
    """Raise `InputError` where the library fails or panics, without what it prints then.

    One thread at a time, and what others print to stderr meanwhile waits for it; of a `trusted`
    tokenizer no panic is expected, and stderr is left alone.
    """
    with nullcontext() if trusted else _stderr_held_back():
        try:
            yield
        except BaseException as error:
            if type(error) is not Exception and type(error).__name__ != PANIC:
                raise
            raise InputError(f"the tokenizer failed: {reason(error)}") from error


@contextmanager
def _stderr_held_back() -> Iterator[None]:
    with _ONE_THREAD, _memory_file() as held:
        kept = None
        with suppress(OSError):  # it may be closed
            kept = os.dup(2)
            os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            if kept is not None:
                os.dup2(kept, 2)
                os.close(kept)
                held.seek(0)  # now that nobody writes there any more
                with suppress(OSError):
                    os.write(2, b"" if failed else held.read())


def _memory_file() -> IO[bytes]:
    if sys.platform == "linux":  # half the time, which counts where text is decoded token by token
        return open(os.memfd_create("stderr"), "w+b", buffering=0)
    return TemporaryFile(buffering=0)


def load_tokenizer(spec: dict[str, Any], text: str) -> "Tokenizer":
    """Return the tokenizer of the `tokenizer.json` `text`, which `spec` is parsed from.

    Texts are never cut or padded by it, and it gives the same ids every time. `InputError` if it
    could take any amount of memory, or the library does not accept it.
    """
    from tokenizers import Tokenizer

    growth = _growth([spec.get(name) for name in ("normalizer", "pre_tokenizer", "decoder")])
    if growth > MOST_GROWTH:
        raise InputError(f"its rules may make a text more than {MOST_GROWTH} times as long")
    with panics_contained():
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        if max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) >= LARGEST_ID:
            raise InputError(f"its ids go beyond {LARGEST_ID:,}")
    return tokenizer


def rules(part: Any) -> set[str]:  # noqa: ANN401 - any part of a description
    """Return the types of all rules in `part`, those within others too."""
    if isinstance(part, list):
        return set().union(*map(rules, part))
    if not isinstance(part, dict):
        return set()
    return {str(part.get("type"))}.union(*map(rules, part.values()))


def _growth(rule: Any) -> float:  # noqa: ANN401 - any part of a description
    """Return how many times as long a text may become by the replacements in `rule`."""
    growth = 1.0
    if isinstance(rule, dict) and "pattern" in rule and isinstance(rule.get("content"), str):
        pattern = rule["pattern"]
        literal = pattern.get("String") if isinstance(pattern, dict) else None
        replaced = len(literal) if isinstance(literal, str) else 0
        # A regular expression may match nothing at all, between any two characters.
        new = len(rule["content"])
        growth = max(1.0, new / replaced if replaced else new + 1.0)
    for part in rule.values() if isinstance(rule, dict) else rule if isinstance(rule, list) else ():
        growth = min(growth * _growth(part), MOST_GROWTH + 1.0)
    return growth
