"""Where to compute, and how its memory is reused."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from newllm_core.config import RunConfig
from newllm_core.errors import ConfigError

# mallopt parameters of glibc (malloc.h).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def prepare_device(config: RunConfig) -> torch.device:
    """Return the device that `--device` means; sets the number of threads and how memory is reused.

    Raises:
        ConfigError: CUDA was asked for and is not there.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("--device cuda: torch finds no CUDA device here; use --device cpu")
    device = torch.device("cpu")
    if available and config.device != "cpu":
        # Each process that torchrun started on this machine takes a device of its own.
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one processor thread in this block."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks.

    By default every large tensor is mapped anew, and the kernel clears each of its pages: that
    costs as much as another pass over the tensor, in every operation of every step.
    """
    if sys.platform != "linux":
        return
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    except (OSError, AttributeError):  # another C library: slower, not wrong
        return
