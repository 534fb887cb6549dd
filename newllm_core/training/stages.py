"""The staged learning rate of Phase 1."""

from newllm_core.config import Phase1Config


def learning_rate(config: Phase1Config, iteration: int) -> float:
    """The rate in `iteration` (1-based) of a window: warm-up, medium, fine-tune; or constant."""
    if config.lr_schedule == "constant" or iteration <= config.warmup_iterations:
        return config.learning_rate
    if iteration <= config.medium_iterations:
        return config.medium_learning_rate
    return config.fine_learning_rate
