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
    """Connections to all other processes of the default group, all of this computer.

    Raises:
        RuntimeError, OSError: one of them has ended; so do the methods.
    """

    def __init__(self) -> None:
        name = torch.tensor(secrets.randbits(62))
        dist.broadcast(name, 0)
        rank = dist.get_rank()
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(_address(name, rank))
            door.listen(dist.get_world_size())
            dist.barrier()
            self.others = [_connected(_address(name, other)) for other in range(rank)]
            dist.barrier()  # whoever is to be let in stands at the door, or gloo has said otherwise
            while len(self.others) < dist.get_world_size() - 1:
                visitor, _ = door.accept()
                if _is_own(visitor):
                    self.others.append(visitor)
                else:
                    visitor.close()

    def wait(self) -> None:
        """Return once every process is here."""
        for other in self.others:
            other.send(b".")
        for other in self.others:
            _listen(other)
            _read(other.recv(1))

    def hand_out(self, file: int | None) -> int | None:
        """The descriptor that the first process has, in every process; whoever gets one closes it.

        None if the first has none.
        """
        if dist.get_rank() == 0:
            for other in self.others:
                socket.send_fds(other, [b"."], [] if file is None else [file])
            return file
        message, files, *_ = socket.recv_fds(self.others[0], 1, 1)
        _read(message)
        return files[0] if files else None

    def close(self) -> None:
        """Leave; whoever waits for this process hears of it."""
        for other in self.others:
            other.close()


def _listen(other: socket.socket) -> None:
    """Return once there is something to read."""
    poll = select.poll()
    poll.register(other, select.POLLIN)
    begun = time.perf_counter()
    while not poll.poll(0):
        if time.perf_counter() - begun > LOOK_SECONDS:
            poll.poll()
        os.sched_yield()


def _read(message: bytes) -> None:
    if not message:
        raise RuntimeError("it closed its connection")


def _address(name: torch.Tensor, rank: int) -> str:
    """An abstract one: it is no file, so nothing is left of it."""
    return f"\0newllm-{int(name):x}-{rank}"


def _connected(address: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    if not _is_own(connection):
        raise RuntimeError("its address belongs to another user")
    return connection


def _is_own(peer: socket.socket) -> bool:
    """Whether it is a process of this user: abstract addresses are open to all of a computer."""
    credentials = struct.Struct("iII")
    found = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    return bool(credentials.unpack(found)[1] == os.geteuid())
