"""`norm(v + ReLU(u))` and its gradients: what the residual update does between its products.

Loops in C where they were compiled, which make one pass over memory and give every core some of the
rows; else the same in torch. Statistics and gradients of vectors are float32 at least.

Shapes: N rows, D columns.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from newllm_core import cores, native
from newllm_core.runtime.precision import at_least_float32

LAYER_NORM_EPSILON = 1e-5
# A core that has fewer numbers to read is not worth waking.
LEAST_NUMBERS = 2**15


class Side(NamedTuple):
    """One of the two that a layer updates, context or token.

    Attributes:
        value: v [N, D].
        update: u [N, D], perhaps columns of a wider matrix.
        gain: of the norm [D].
        shift: of the norm [D].
        wide: the result is wanted in float32 at least, not in the dtype of `v`.
    """

    value: Tensor
    update: Tensor
    gain: Tensor
    shift: Tensor
    wide: bool


class Normed(NamedTuple):
    """The result for one side [N, D], means and reciprocal deviations [N, 1]."""

    out: Tensor
    mean: Tensor
    rstd: Tensor


class Reached(NamedTuple):
    """One side on the way back.

    Attributes:
        grad: of the result, in the dtype of `v` or float32 at least.
        value: v.
        update: u as `forward` left it.
        gain: of the norm.
        mean: as `forward` gave it.
        rstd: the same.
        of_update: where the gradient of u goes, perhaps columns of a wider matrix.
    """

    grad: Tensor
    value: Tensor
    update: Tensor
    gain: Tensor
    mean: Tensor
    rstd: Tensor
    of_update: Tensor


class Gradients(NamedTuple):
    """Of `v` [N, D], of gain and shift [D], and of a bias in `u` [D]."""

    value: Tensor
    gain: Tensor
    shift: Tensor
    bias: Tensor


def forward(sides: Sequence[Side]) -> list[Normed]:
    """The results; every `u` may or may not become `ReLU(u)`, which is all the same from here."""
    if not all(_suit(side.value, side.update, side.gain) for side in sides):
        return [
            Normed(*norm(_sum(s.value, s.update.relu_(), s.wide), s.gain, s.shift)) for s in sides
        ]
    rows = len(sides[0].value)
    results = [
        Normed(
            torch.empty_like(side.value, dtype=torch.float32 if side.wide else side.value.dtype),
            side.gain.new_empty(rows, 1),
            side.gain.new_empty(rows, 1),
        )
        for side in sides
    ]

    def part(share: slice) -> None:
        for side, result in zip(sides, results, strict=True):
            columns = side.value.shape[1]
            out = result.out[share]
            native.call(
                "residual",
                side.value[share],
                side.update[share],
                side.gain,
                side.shift,
                None if side.wide else out,
                out if side.wide else None,
                result.mean[share],
                result.rstd[share],
                side.gain.new_empty(columns),
                len(out),
                columns,
                side.update.stride(0),
                dtype=side.value.dtype,
            )

    cores.divided(part, rows, LEAST_NUMBERS // sides[0].value.shape[1])
    return results


def backward(sides: Sequence[Reached]) -> list[Gradients]:
    """The gradients; those of every u go where they are wanted."""
    if not all(_suit(s.value, s.update, s.gain) and _is_known(s) for s in sides):
        return [_plain_backward(side) for side in sides]
    rows = len(sides[0].value)
    grads = [side.grad.contiguous() for side in sides]
    of_values = [torch.empty_like(side.value) for side in sides]

    def part(share: slice) -> list[Tensor]:
        found = []
        for side, grad, of_value in zip(sides, grads, of_values, strict=True):
            columns = side.value.shape[1]
            of_vectors = side.gain.new_empty(3, columns)
            wide = grad.dtype != side.value.dtype
            native.call(
                "residual_backward",
                None if wide else grad[share],
                grad[share] if wide else None,
                side.value[share],
                side.update[share],
                side.gain,
                side.mean[share],
                side.rstd[share],
                of_value[share],
                side.of_update[share],
                of_vectors,
                side.gain.new_empty(2, columns),
                share.stop - share.start,
                columns,
                side.update.stride(0),
                side.of_update.stride(0),
                dtype=side.value.dtype,
            )
            found.append(of_vectors)
        return found

    parts = cores.divided(part, rows, LEAST_NUMBERS // sides[0].value.shape[1])
    sums = [sum(of_parts[1:], start=of_parts[0]) for of_parts in zip(*parts, strict=True)]
    return [
        Gradients(of_value, *of_vectors)
        for of_value, of_vectors in zip(of_values, sums, strict=True)
    ]


def _plain_backward(side: Reached) -> Gradients:
    summed = _sum(side.value, side.update, side.grad.dtype != side.value.dtype)
    grad = side.grad.to(summed.dtype)
    of_value, of_gain, of_shift = norm_backward(grad, summed, side.mean, side.rstd, side.gain)
    of_value = of_value.to(side.value.dtype)
    mask(of_value, side.update, side.of_update)
    of_bias = side.of_update.sum(0, dtype=at_least_float32(side.gain).dtype)
    return Gradients(of_value, of_gain, of_shift, of_bias)


def _sum(value: Tensor, update: Tensor, wide: bool) -> Tensor:
    # As it leaves the recurrence it is compared and accumulated: it is not rounded.
    return (at_least_float32(value) if wide else value) + update


def _is_known(side: Reached) -> bool:
    return side.grad.dtype in (side.value.dtype, torch.float32)


def _suit(value_ND: Tensor, update_ND: Tensor, gain: Tensor) -> bool:
    return (
        native.suits(value_ND, dtypes=native.DTYPES)
        and native.suits(gain)
        and update_ND.dtype == value_ND.dtype
        and update_ND.device == value_ND.device
    )


def norm(z: Tensor, gain: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """LayerNorm of `z` [N, D], its means and reciprocal standard deviations."""
    return torch.native_layer_norm(z, (z.shape[1],), gain, shift, LAYER_NORM_EPSILON)


def norm_backward(
    grad: Tensor,
    z: Tensor,
    mean: Tensor,
    rstd: Tensor,
    gain: Tensor,
    wanted: tuple[bool, bool, bool] = (True, True, True),
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of z, gain and shift; only those that are `wanted` are computed."""
    return torch.ops.aten.native_layer_norm_backward(
        grad.contiguous(), z, (z.shape[1],), mean, rstd, gain, gain, wanted
    )


def mask(grad: Tensor, activated: Tensor, out: Tensor) -> None:
    """Write `grad` where a ReLU let its input through, else 0, into `out`."""
    torch.ops.aten.threshold_backward.grad_input(grad, activated, 0, grad_input=out)
