"""Where to compute."""

import torch

from newllm_core.config import RunConfig
from newllm_core.errors import ConfigError


def prepare_device(config: RunConfig) -> torch.device:
    """The device that `--device` means; sets the number of threads.

    Raises:
        ConfigError: CUDA was asked for and is not there.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("--device cuda: torch finds no CUDA device here; use --device cpu")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")
