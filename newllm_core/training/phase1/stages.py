"""The staged learning rate of Phase 1."""

from newllm_core.config import Phase1Config


def learning_rate(config: Phase1Config, iteration: int, *, first_window: bool = True) -> float:
    """The rate in `iteration` (1-based) of a window: warm-up, medium, fine-tune; or constant.

    Later windows go on where the first one ended: they begin with the medium rate, and where they
    have several iterations with steps the last has the fine one.
    """
    if config.lr_schedule == "constant":
        return config.learning_rate
    if first_window:
        stages = config.warmup_iterations, config.medium_iterations
    else:
        stages = 0, max(2, min(config.max_iterations, config.later_iterations) - 1)
    if iteration <= stages[0]:
        return config.learning_rate
    return config.medium_learning_rate if iteration <= stages[1] else config.fine_learning_rate
