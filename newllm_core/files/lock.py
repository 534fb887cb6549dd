"""One writer at a time: a lock that the kernel drops when its holder ends, however it ends."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from newllm_core.errors import InputError, reason


@contextmanager
def exclusive(path: Path, *, option: str = "--out") -> Iterator[None]:
    """Hold the lock of what is going to be written at `path` (a file or folder, there or not).

    The lock is on an empty file `.NAME.lock` beside `path`, which is gone afterwards. A holder
    that was killed leaves that file behind; it is locked by nobody and taken over by the next.
    `InputError`, which names the `option` that `path` was given with, if somebody else holds it.
    """
    try:
        path = Path(os.path.realpath(path))  # a file has one lock, whatever links lead to it
        sidecar = path.parent / f".{path.name}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _lock(sidecar)
    except BlockingIOError as error:
        raise InputError(
            f"another newllm is writing {path}: wait until it is done, or choose another {option}"
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {path}: {reason(error)}") from error
    try:
        yield
    finally:
        # Removed while it is still locked: whoever opened it meanwhile sees that it is gone.
        with suppress(OSError):
            sidecar.unlink()
        os.close(descriptor)


def _lock(sidecar: Path) -> int:
    """Return an open descriptor of `sidecar`, locked; BlockingIOError if somebody else has it."""
    while True:
        descriptor = os.open(sidecar, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), sidecar.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its former holder removed it between our open and our lock
