"""Where to compute, and how its memory is reused."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import Tensor

from newllm_core.config import RunConfig
from newllm_core.config.run import GPU_CHECK_INTERVAL
from newllm_core.errors import ConfigError

# mallopt parameters of glibc (malloc.h).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
WITHOUT_FLOAT64 = {"mps"}


def prepare_device(config: RunConfig) -> torch.device:
    """Return the device that `--device` means; sets the number of threads and how memory is reused.

    Raises:
        ConfigError: a GPU was asked for and is not there, or not one for each process; or PyTorch
            makes another type than float32 by default, which no checkpoint has, or puts on a GPU
            what belongs to the processor.
    """
    if (default := torch.get_default_dtype()) != torch.float32:
        raise ConfigError(
            f"PyTorch makes {default} by default, and checkpoints are float32: call "
            "torch.set_default_dtype(torch.float32) before"
        )
    if (place := torch.empty(0).device).type != "cpu":
        raise ConfigError(
            f"PyTorch makes tensors on {place} by default, and --device says where: call "
            "torch.set_default_device(None) before"
        )
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    chosen = config.device
    if chosen == "auto":
        chosen = "cuda" if torch.cuda.is_available() else "cpu"
    if chosen not in available_devices():
        raise ConfigError(
            f"--device {chosen}: torch finds no {chosen.upper()} device here; use --device cpu"
        )
    device = torch.device(chosen)
    if chosen == "cuda":
        # Each process that torchrun started on this machine takes a device of its own.
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if (count := torch.cuda.device_count()) <= device.index:
            raise ConfigError(
                f"process {device.index + 1} of this machine has no CUDA device of its own, there "
                f"are {count}: start as many with torchrun --nproc-per-node {count}"
            )
        torch.cuda.set_device(device)
    if device.type == "cpu":
        keep_freed_memory()
    return device


def available_devices() -> list[str]:
    """List the types of devices that torch can compute on here."""
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    return ["cpu", *(name for name, there in found.items() if there)]


def where_exact(values: Tensor) -> Tensor:
    """Copy `values` to the processor if their device has no float64."""
    return values.cpu() if values.device.type in WITHOUT_FLOAT64 else values


def steps_between_checks(config: RunConfig, device: torch.device) -> int:
    """Return after how many steps figures are fetched from `device`, which waits for it."""
    if config.check_interval_steps is not None:
        return config.check_interval_steps
    return 1 if device.type == "cpu" else GPU_CHECK_INTERVAL


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Copy values of the processor; to CUDA through pinned memory, without waiting for it."""
    if device.type in ("cpu", "mps"):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)


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
    with suppress(OSError, AttributeError):  # another C library: slower, not wrong
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 2**30)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
