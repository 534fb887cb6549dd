"""Where processes of one computer wait for each other.

Through gloo a wait costs two threads' being woken, which takes longer than the wait itself. Here a
process looks again and again for a while, and sleeps only then.
"""

import os
import secrets
import select
import socket
import struct
import time

import torch
import torch.distributed as dist

# Longer than a step's unevenness, short enough that a process that waits for a slow one (which
# writes a file, say) leaves its core to others.
LOOK_SECONDS = 0.02


class Meeting:
    """Connections to all other processes of the default group, all of this computer."""

    def __init__(self) -> None:
        name = torch.tensor(secrets.randbits(62))
        dist.broadcast(name, 0)
        rank = dist.get_rank()
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(_address(name, rank))
            door.listen(dist.get_world_size())
            dist.barrier()
            self.others = [_connected(_address(name, other)) for other in range(rank)]
            while len(self.others) < dist.get_world_size() - 1:
                visitor, _ = door.accept()
                if _user(visitor) == os.getuid():
                    self.others.append(visitor)
                else:
                    visitor.close()

    def wait(self) -> None:
        """Return once every process is here.

        Raises:
            RuntimeError, OSError: one of them has ended.
        """
        for other in self.others:
            other.send(b".")
        for other in self.others:
            _listen(other)

    def close(self) -> None:
        """Leave; whoever waits for this process hears of it."""
        for other in self.others:
            other.close()


def _listen(other: socket.socket) -> None:
    poll = select.poll()
    poll.register(other, select.POLLIN)
    begun = time.perf_counter()
    while not poll.poll(0):
        if time.perf_counter() - begun > LOOK_SECONDS:
            poll.poll()
        os.sched_yield()
    if not other.recv(1):
        raise RuntimeError("it closed its connection")


def _address(name: torch.Tensor, rank: int) -> str:
    """An abstract one: it is no file, so nothing is left of it."""
    return f"\0newllm-{int(name):x}-{rank}"


def _connected(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


def _user(visitor: socket.socket) -> int:
    """Whose process it is: abstract addresses are open to all users of a computer."""
    size = struct.calcsize("3i")
    credentials = visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return struct.unpack("3i", credentials)[1]
