"""What is the same for every command."""

from dataclasses import dataclass

from newllm_core.config.option import Section, option

# Steps between two checks of `check_interval_steps` where a processor waits for another device.
GPU_CHECK_INTERVAL = 50


@dataclass(frozen=True)
class RunConfig(Section, name="run"):
    """What is the same for every command."""

    seed: int = option(0, "Seed of everything random.", low=0, high=2**32 - 1)
    device: str = option("auto", "Where to compute.", choices=("auto", "cpu", "cuda", "mps"))
    threads: int | None = option(None, "Processor threads; none takes all.", low=1, high=1024)
    precision: str = option(
        "auto",
        "Matrix products in training and evaluation; auto takes bfloat16 where the hardware makes "
        "it faster.",
        choices=("auto", "float32", "bfloat16"),
    )
    tf32: bool = option(
        False,
        "Let a GPU round the inputs of the float32 matrix products that are left to TF32, 10 bits.",
    )
    kernels: str = option(
        "auto",
        "auto: fast forms where there are any; off: every formula as it is written.",
        choices=("auto", "off"),
    )
    sharding: str = option(
        "none",
        "What processes of torchrun divide: none, each holds the whole model; full, each holds a "
        "share of parameters, gradients and optimizer state.",
        choices=("none", "full"),
    )
    warn_tokens: int = option(
        10_000, "More tokens to read than this are announced, with an estimate of the time.", low=0
    )
    check_interval_steps: int | None = option(
        None,
        "Steps of training after which losses are fetched and checked, for which a GPU is waited "
        f"for; none: 1 on a processor, {GPU_CHECK_INTERVAL} elsewhere.",
        low=1,
    )
    save_interval_seconds: float = option(
        600.0, "Seconds between two saves of the state that --resume continues from.", low=0
    )
