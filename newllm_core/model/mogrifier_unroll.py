"""Back-propagation through time of one `MogrifierLayer`, written out.

Tests compare values and every gradient with autograd's. Gradients of weights are made for all steps
at once, after the recurrence. Matrix products are made in `dtype`; gates and contexts are not
rounded to it.

Shapes: T tokens, B streams, C context_dim, E embed_dim.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from newllm_core.model.by_core import read_by_core
from newllm_core.model.gates import operations
from newllm_core.model.mogrifier import MogrifierLayer
from newllm_core.runtime.precision import at_least_float32


@dataclass
class _Trace:
    """What the backward pass needs, all steps of each in one tensor.

    Round r of gating reads context (r even) or token (r odd) and changes the other.

    Attributes:
        narrow: c and x before any gating, as products read them [T, B, .].
        gates: the sigmoids of every round.
        gated: what each round gave.
        narrow_gated: the same as products read it.
        of_context: products of W_c [T, B, 3 C].
        keep_reset: g and r side by side [T, B, 2 C].
        candidate: h [T, B, C].
    """

    narrow: tuple[Tensor, Tensor]
    gates: list[Tensor]
    gated: list[Tensor]
    narrow_gated: list[Tensor]
    of_context: Tensor
    keep_reset: Tensor
    candidate: Tensor

    def read_in(self, number: int) -> Tensor:
        """What round `number` read."""
        return self.narrow_gated[number - 1] if number > 0 else self.narrow[0]

    def read_after(self, side: int) -> Tensor:
        """The context (0) or token (1) after all rounds."""
        return [self.narrow[side], *self.narrow_gated[1 - side :: 2]][-1]


class MogrifierUnroll(torch.autograd.Function):
    """Contexts of streams that read their tokens in lock-step; see `unroll_mogrifier`."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        x_TBE: Tensor,
        start_BC: Tensor,
        dtype: torch.dtype,
        w_c: Tensor,
        w_x: Tensor,
        bias: Tensor,
        *gating: Tensor,
    ) -> Tensor:
        """Contexts [T, B, C]; `gating` has weight and bias of every round."""
        length, streams, embed_dim = x_TBE.shape
        dims = start_BC.shape[1]
        w_c, w_x, bias = w_c.to(dtype), w_x.to(dtype), bias.to(dtype)
        rounds = [(gating[i].to(dtype), gating[i + 1].to(dtype)) for i in range(0, len(gating), 2)]
        start = at_least_float32(start_BC).contiguous()
        wide = start.dtype
        tokens = x_TBE.to(wide).contiguous()
        keep = any(ctx.needs_input_grad)

        def space(width: int, kind: torch.dtype, steps: int = length) -> Tensor:
            """For every step if the backward pass needs them, else the same for all."""
            own = x_TBE.new_empty(steps if keep else 1, streams, width, dtype=kind)
            return own.expand(steps, -1, -1)

        widths = [(embed_dim, dims)[number % 2] for number in range(len(rounds))]
        narrow_contexts = space(dims, dtype, length + 1)
        narrow_contexts[0] = start
        trace = _Trace(
            narrow=(narrow_contexts[:length], tokens.to(dtype)),
            gates=[space(width, wide) for width in widths],
            gated=[space(width, wide) for width in widths],
            narrow_gated=[space(width, dtype) for width in widths],
            of_context=space(3 * dims, dtype),
            keep_reset=space(2 * dims, wide),
            candidate=space(dims, wide),
        )
        contexts = x_TBE.new_empty(length, streams, dims, dtype=wide)
        do = operations(dtype, start)
        gate_steps = _steps_of_rounds(trace.gates, trace.gated, trace.narrow_gated)
        others = (trace.of_context, trace.keep_reset, trace.candidate, contexts)
        context = start
        for step, (
            x,
            narrow_x,
            narrow_c,
            next_narrow_c,
            of_context,
            keep_reset,
            h,
            out,
        ) in enumerate(
            zip(
                *(every.unbind(0) for every in (tokens, trace.narrow[1], trace.narrow[0])),
                narrow_contexts[1:].unbind(0),
                *(every.unbind(0) for every in others),
                strict=True,
            )
        ):
            # Both as they are gated, and as products read them.
            values, narrow = [context, x], [narrow_c, narrow_x]
            for number, (weight, shift) in enumerate(rounds):
                reader, changed = number % 2, 1 - number % 2
                gate, gated, narrow_gated = gate_steps[number][step]
                sums = torch.addmm(shift, narrow[reader], weight.T)
                do.gate(sums, values[changed], gate, gated, narrow_gated)
                values[changed], narrow[changed] = gated, narrow_gated
            torch.mm(narrow[0], w_c.T, out=of_context)
            of_token = torch.addmm(bias, narrow[1], w_x.T)
            do.cell(of_context, of_token, context, keep_reset, h, out, next_narrow_c)
            context = out
        ctx.trace, ctx.weights, ctx.rounds = trace, (w_c, w_x), rounds
        ctx.save_for_backward(start, contexts)
        return contexts.to(start_BC.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBC: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        """Gradients in the order of `forward`."""
        trace, (w_c, w_x), rounds = ctx.trace, ctx.weights, ctx.rounds
        start, contexts = ctx.saved_tensors
        grad_TBC = at_least_float32(grad_TBC).contiguous()
        of_context, of_token = (torch.empty_like(trace.of_context) for _ in range(2))
        of_gates = [torch.empty_like(gated) for gated in trace.narrow_gated]
        of_x = torch.empty_like(trace.narrow[1], dtype=start.dtype)
        wide = start.dtype
        do = operations(w_c.dtype, start)
        gate_steps = _steps_of_rounds(trace.gates, trace.gated, of_gates)
        tensors = (grad_TBC, trace.of_context, trace.keep_reset, trace.candidate)
        columns = [every.unbind(0) for every in (*tensors, of_context, of_token, of_x)]
        columns.append((start, *contexts[:-1].unbind(0)))
        carried = torch.zeros_like(start)
        of_c = torch.zeros_like(start)
        for step, row in reversed(list(enumerate(zip(*columns, strict=True)))):
            grad, from_context, keep_reset, candidate, d_context, d_token, d_x, context = row
            grad = grad + of_c
            kept = (from_context, context, keep_reset, candidate)
            do.cell_backward(grad, carried, *kept, d_context, d_token)
            d_values = [(d_context @ w_c).to(wide), (d_token @ w_x).to(wide)]
            for number in reversed(range(len(rounds))):
                reader, changed = number % 2, 1 - number % 2
                gate, gated, of_sum = gate_steps[number][step]
                do.gate_backward(d_values[changed], gate, gated, of_sum)
                d_values[reader] += of_sum @ rounds[number][0]
            of_c = d_values[0]
            d_x.copy_(d_values[1])

        def matrix_gradient(grad: Tensor, read: Tensor) -> Tensor:
            return (grad.flatten(0, 1).T @ read.flatten(0, 1)).to(wide)

        found: list[Tensor] = []
        for number, grad in enumerate(of_gates):
            found.append(matrix_gradient(grad, trace.read_in(number)))
            found.append(grad.sum((0, 1), dtype=wide))
        d_wc = matrix_gradient(of_context, trace.read_after(0))
        d_wx = matrix_gradient(of_token, trace.read_after(1))
        d_bias = of_token.sum((0, 1), dtype=wide)
        return (of_x, of_c + carried, None, d_wc, d_wx, d_bias, *found)


def _steps_of_rounds(*tensors: list[Tensor]) -> list[list[tuple[Tensor, ...]]]:
    """For every round and step, what is there of each: `tensors` have one [T, B, .] per round."""
    return [
        list(zip(*(every.unbind(0) for every in of_round), strict=True))
        for of_round in zip(*tensors, strict=True)
    ]


def unroll_mogrifier(
    layer: MogrifierLayer, x_TBE: Tensor, start_BC: Tensor, dtype: torch.dtype
) -> Tensor:
    """Contexts [T, B, C] of a model that is this one layer.

    Args:
        layer: the recurrence.
        x_TBE: embedded tokens.
        start_BC: the contexts the streams come from.
        dtype: of matrix products.
    """
    gating = (parameter for gate in layer.gating for parameter in gate.parameters())
    parameters = (layer.context_weight, layer.token_weight, layer.bias, *gating)
    (contexts,) = read_by_core(partial(_unroll, dtype), x_TBE, start_BC, *parameters)
    return contexts


def _unroll(
    dtype: torch.dtype, x_TBE: Tensor, start_BC: Tensor, *parameters: Tensor
) -> tuple[Tensor]:
    return (MogrifierUnroll.apply(x_TBE, start_BC, dtype, *parameters),)
