"""Matrices whose products are made in bfloat16."""

from torch import Tensor

from newllm_core.native import call


def sum_of_squares(values: Tensor) -> float:
    """Of numbers in bfloat16."""
    return call("sum_of_squares", values, values.numel())


def adam_narrow(
    matrix: Tensor,
    mean: Tensor,
    square: Tensor,
    gradient: Tensor,
    copy: Tensor,
    *,
    scale: float,
    step: int,
    rate: float,
    betas: tuple[float, float],
    eps: float,
) -> None:
    """Step number `step` of Adam with `scale` times a gradient in bfloat16, in place.

    The new matrix goes to `copy` in bfloat16 as well.
    """
    beta1, beta2 = betas
    root = (1 - beta2**step) ** -0.5
    numbers = (scale, beta1, beta2, rate / (1 - beta1**step), root, eps)
    call("adam_narrow", matrix, mean, square, gradient, copy, matrix.numel(), *numbers)
