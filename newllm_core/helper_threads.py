"""Threads that help with calls of `cores.at_once`: they sleep, or look out for the next call.

Waking a thread that sleeps takes a tenth of a millisecond, and so does waiting asleep for one.
"""

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import torch

from newllm_core.native import call, library

T = TypeVar("T")


class Call(Generic[T]):
    """Actions that the caller and up to `helpers` other threads make, each the next one left.

    Args:
        actions: what to make.
        helpers: how many threads may join.
        look_out: nanoseconds for which who waits for another looks out before it sleeps.
    """

    def __init__(self, actions: Sequence[Callable[[], T]], helpers: int, look_out: int) -> None:
        self.look_out = look_out
        self._left = deque(enumerate(actions))
        self._done: dict[int, T] = {}
        self._errors: list[BaseException] = []
        self._seats = deque(range(helpers))
        self._ended = [threading.Event() for _ in range(helpers)]
        self._numbers = (ctypes.c_int64 * helpers)()  # the same, for who looks out

    def work(self) -> None:
        """Make what is left."""
        while True:
            try:
                number, action = self._left.popleft()
            except IndexError:
                return
            self._done[number] = action()

    def help(self) -> None:
        """The same in a helper, unless the caller is through."""
        try:
            seat = self._seats.popleft()
        except IndexError:
            return
        try:
            self.work()
        except BaseException as error:  # it is the caller's
            self._errors.append(error)
        self._ended[seat].set()
        self._numbers[seat] = 1

    def close(self) -> None:
        """Let nobody else begin, and wait for those who did, even when interrupted meanwhile."""
        self._left.clear()
        interrupted: KeyboardInterrupt | None = None
        begun = set(range(len(self._ended)))
        while True:
            try:
                begun.discard(self._seats.popleft())
            except IndexError:
                break
        for seat in begun:
            address = ctypes.addressof(self._numbers) + seat * ctypes.sizeof(ctypes.c_int64)
            _look_out(address, 0, self.look_out)
            while not self._ended[seat].is_set():
                try:
                    self._ended[seat].wait()
                except KeyboardInterrupt as error:
                    interrupted = error
        if interrupted is not None:
            raise interrupted

    def results(self) -> list[T]:
        """What all actions returned, in their order; raises what a helper met."""
        errors, self._errors = self._errors, []
        if errors:
            raise errors[0]
        return [self._done[number] for number in range(len(self._done))]


class Helper:
    """A thread of one core."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call[Any]] = SimpleQueue()
        self._given = ctypes.c_int64(0)
        self._giving = threading.Lock()
        threading.Thread(target=self._serve, name="other core", daemon=True).start()

    def give(self, call: Call[Any]) -> None:
        """Let it help as soon as it can."""
        with self._giving:
            self._calls.put(call)
            self._given.value += 1

    @torch.no_grad()
    def _serve(self) -> None:
        torch.set_num_threads(1)  # settings of torch are a thread's own
        look_out = taken = 0
        while True:
            _look_out(ctypes.addressof(self._given), taken, look_out)
            call = self._calls.get()
            taken += 1
            call.help()
            look_out = call.look_out
            del call  # nothing is kept alive while it sleeps


def _look_out(address: int, seen: int, nanoseconds: int) -> None:
    """Return when the number at `address` is not `seen` any more, or the time is over."""
    if nanoseconds and library() is not None:
        call("look_out", address, seen, nanoseconds)


def helpers(count: int) -> list[Helper]:
    """So many threads, made when they are needed first."""
    while len(_helpers) < count:
        _helpers.append(Helper())
    return _helpers[:count]


_helpers: list[Helper] = []
# A child has none of its parent's threads, and would wait for them.
os.register_at_fork(after_in_child=_helpers.clear)
