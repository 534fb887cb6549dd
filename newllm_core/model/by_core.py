"""Streams that read their tokens at the same time, every core some of them.

A step of the recurrence is a dozen small operations: too little work to divide each of them.

Shapes: T tokens, B streams, C context_dim, E embed_dim.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from newllm_core import cores

# With fewer streams, products are slow for their size.
FEWEST_STREAMS = 16

Unroll = Callable[..., tuple[Tensor, ...]]


def read_by_core(
    unroll: Unroll, x_TBE: Tensor, start_BC: Tensor, *parameters: Tensor
) -> tuple[Tensor, ...]:
    """`unroll(x_TBE, start_BC, *parameters)`: tensors [T, B, C], with their gradients."""
    parts = cores.shares(len(start_BC), FEWEST_STREAMS)
    if len(parts) == 1 or x_TBE.device.type != "cpu":
        return unroll(x_TBE, start_BC, *parameters)
    if not torch.is_grad_enabled():  # inside `apply` it never is: nothing need be kept
        x_TBE, start_BC = x_TBE.detach(), start_BC.detach()
        parameters = tuple(parameter.detach() for parameter in parameters)
    found: tuple[Tensor, ...] = _ByCore.apply(unroll, parts, x_TBE, start_BC, *parameters)
    return found


class _ByCore(torch.autograd.Function):
    """Every part has a graph of its own, which its core made and goes back through."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        unroll: Unroll,
        parts: list[slice],
        x_TBE: Tensor,
        start_BC: Tensor,
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        needed = ctx.needs_input_grad[2:]

        def read(part: slice) -> tuple[list[Tensor], tuple[Tensor, ...]]:
            inputs = [
                tensor.detach().requires_grad_(needs)
                for tensor, needs in zip(
                    (x_TBE[:, part], start_BC[part], *parameters), needed, strict=True
                )
            ]
            with torch.set_grad_enabled(any(needed)):
                return inputs, unroll(*inputs)

        done = cores.on_each(read, parts)
        ctx.parts, ctx.done = parts, done
        ctx.set_materialize_grads(False)
        outputs = zip(*(contexts for _, contexts in done), strict=True)
        return tuple(torch.cat([c.detach() for c in of_parts], dim=1) for of_parts in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads_TBC: Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """Gradients in the order of `forward`."""
        numbers = [n for n, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        given = {n: grad for n, grad in enumerate(grads_TBC) if grad is not None}

        def go_back(index: int) -> tuple[Tensor, ...]:
            inputs, contexts = ctx.done[index]
            return torch.autograd.grad(
                [contexts[n] for n in given],
                [inputs[n] for n in numbers],
                [grad[:, ctx.parts[index]] for grad in given.values()],
                materialize_grads=True,
                retain_graph=True,
            )

        done = cores.on_each(go_back, range(len(ctx.parts)))
        found: list[Tensor | None] = [None] * len(ctx.needs_input_grad)
        for number, of_parts in zip(numbers, zip(*done, strict=True), strict=True):
            if number < 2:
                found[2 + number] = torch.cat(of_parts, dim=1 - number)
            else:
                found[2 + number] = sum(of_parts[1:], start=of_parts[0])
        return tuple(found)
