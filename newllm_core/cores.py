"""Work that is divided over cores by hand, operations running on one core each.

Waking the other cores for every single operation takes longer than many operations do; handing
each core a piece of work that consists of many operations wakes it once.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import TypeVar

import torch

P = TypeVar("P")
T = TypeVar("T")


class _Own(threading.local):
    """Of one thread.

    Attributes:
        cores: what it may use, where operations are held to less.
    """

    cores: int | None = None


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="other core")


def _after_fork() -> None:
    """A child has none of its parent's threads, and would wait for them."""
    global _others
    _others = _pool()


_own = _Own()
_others = _pool()
os.register_at_fork(after_in_child=_after_fork)


def available() -> int:
    """Cores that the caller may use: the number of torch's threads, one inside of `at_once`."""
    return _own.cores or torch.get_num_threads()


@contextmanager
def undivided() -> Iterator[None]:
    """Inside, operations run on one core each; what `at_once` is given still uses several."""
    before, threads = _own.cores, torch.get_num_threads()
    _own.cores = available()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _own.cores = before


@torch.no_grad()
def at_once(*actions: Callable[[], T]) -> list[T]:
    """What all return, computed at the same time, without gradients; on one core, in turn.

    A core that is done takes the next action, so one that wakes late holds nobody up.
    """
    count = min(available(), len(actions))
    if count <= 1:
        return [action() for action in actions]
    left = deque(enumerate(actions))
    done: dict[int, T] = {}
    others = [_others.submit(_alone, left, done) for _ in range(count - 1)]
    before, _own.cores = _own.cores, 1
    try:
        _take(left, done)
    finally:
        _own.cores = before
        left.clear()
        # Nothing goes on behind the back of whoever handles an error.
        errors = [other.exception() for other in others if not other.cancel()]
    for error in errors:
        if error is not None:
            raise error
    return [done[number] for number in range(len(actions))]


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


def _take(left: deque[tuple[int, Callable[[], T]]], done: dict[int, T]) -> None:
    while True:
        try:
            number, action = left.popleft()
        except IndexError:
            return
        done[number] = action()


def _alone(left: deque[tuple[int, Callable[[], T]]], done: dict[int, T]) -> None:
    """Settings of torch are a thread's own."""
    if torch.get_num_threads() > 1:
        torch.set_num_threads(1)
    with torch.no_grad():
        _take(left, done)
