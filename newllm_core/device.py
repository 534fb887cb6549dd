"""Where to compute, and in which precision."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from newllm_core.config import RunConfig
from newllm_core.errors import ConfigError
from newllm_core.model.language_model import LanguageModel

# mallopt parameters of glibc (malloc.h).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def prepare_device(config: RunConfig) -> torch.device:
    """The device that `--device` means; sets the number of threads and how memory is reused.

    Raises:
        ConfigError: CUDA was asked for and is not there.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("--device cuda: torch finds no CUDA device here; use --device cpu")
    device = torch.device("cuda" if available and config.device != "cpu" else "cpu")
    if device.type == "cpu":
        _keep_freed_memory()
    return device


def uses_bfloat16(config: RunConfig, device: torch.device) -> bool:
    """Whether matrix products of training are made in bfloat16."""
    if config.precision != "auto":
        return config.precision == "bfloat16"
    return has_matrix_units(device)


def has_matrix_units(device: torch.device) -> bool:
    """Whether bfloat16 products are much faster than float32: AMX, or tensor cores since Ampere."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    try:
        return "amx_bf16" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:  # not Linux: no way to ask, so nothing is risked
        return False


@contextmanager
def matrix_precision(
    model: LanguageModel, config: RunConfig, device: torch.device
) -> Iterator[None]:
    """Let matrix products round their inputs to bfloat16, if that is configured.

    Sums, statistics, losses, optimizer state, parameters and final contexts stay float32. On a
    processor the blocks of the default update keep bfloat16 between their products as well;
    everything else converts inside each product.
    """
    before = torch.get_float32_matmul_precision()
    narrow = uses_bfloat16(config, device)
    torch.set_float32_matmul_precision("medium" if narrow else "highest")
    if narrow and device.type == "cpu" and all(layer.is_fused for layer in model.layers()):
        model.compute_dtype = torch.bfloat16
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
        model.compute_dtype = None


def _keep_freed_memory() -> None:
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
