"""Work that is divided over cores by hand, operations running on one core each.

Waking the other cores for every single operation takes longer than many operations do; handing
each core a piece of work that consists of many operations wakes it once.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch

from newllm_core.helper_threads import Call, helpers

P = TypeVar("P")
T = TypeVar("T")
# For how long a core looks out for its next action, where many follow each other, in nanoseconds.
LOOK_OUT = 500_000


class _Own(threading.local):
    """Of one thread.

    Attributes:
        cores: what it may use, where operations are held to less.
        look_out: for its helpers, in nanoseconds.
    """

    cores: int | None = None
    look_out = 0


_own = _Own()


def available() -> int:
    """Cores that the caller may use: the number of torch's threads, one inside of `at_once`."""
    return _own.cores or torch.get_num_threads()


@contextmanager
def undivided(*, look_out: bool = False) -> Iterator[None]:
    """Inside, operations run on one core each; what `at_once` is given still uses several.

    Args:
        look_out: the other cores do not sleep at once but look out for what they are given next,
            and cost processor time: where many short actions follow each other.
    """
    before, threads = (_own.cores, _own.look_out), torch.get_num_threads()
    _own.cores = available()
    _own.look_out = LOOK_OUT if look_out else _own.look_out
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _own.cores, _own.look_out = before


@torch.no_grad()
def at_once(*actions: Callable[[], T]) -> list[T]:
    """What all return, computed at the same time, without gradients; on one core, in turn.

    A core that is done takes the next action, so one that wakes late holds nobody up.
    """
    count = min(available(), len(actions))
    if count <= 1:
        return [action() for action in actions]
    call = Call(actions, count - 1, _own.look_out)
    before = _own.cores
    try:
        for helper in helpers(count - 1):
            helper.give(call)
        _own.cores = 1
        call.work()
    finally:
        _own.cores = before
        call.close()  # nothing goes on behind the back of whoever handles an error
    return call.results()


def shares(size: int, least: int) -> list[slice]:
    """`range(size)` in equal slices, as many as there are cores, none shorter than `least`."""
    count = max(1, min(available(), size // max(1, least)))
    bounds = [size * part // count for part in range(count + 1)]
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def divided(work: Callable[[slice], T], size: int, least: int) -> list[T]:
    """`work` on every share of `range(size)` at once, operations running on one core each."""
    return on_each(work, shares(size, least))


def on_each(work: Callable[[P], T], parts: Sequence[P]) -> list[T]:
    """`work` on every part at once, operations running on one core each; all cores for a single."""
    if len(parts) == 1:
        return [work(parts[0])]
    with undivided():
        return at_once(*(partial(work, part) for part in parts))
