"""Back-propagation through time of one `MogrifierLayer`, written out.

Tests compare values and every gradient with autograd's. Gradients of weights are made for all steps
at once, after the recurrence. Matrix products are made in `dtype`; gates and contexts are not
rounded to it.

Shapes: T tokens, B streams, C context_dim, E embed_dim.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from newllm_core.model.mogrifier import MogrifierLayer
from newllm_core.precision import at_least_float32

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


@dataclass
class _Step:
    """What the backward pass needs of one step.

    Attributes:
        read: what each round of gating read [B, C] or [B, E], in the dtype of products.
        gated: what each round gave [B, E] or [B, C].
        gates: its sigmoids.
        context: c [B, C].
        context_read: c~ [B, C], in the dtype of products.
        token_read: x after all rounds [B, E], in the dtype of products.
        from_context: h_c [B, C].
        keep_reset: g and r side by side [B, 2 C].
        candidate: h [B, C].
    """

    read: list[Tensor]
    gated: list[Tensor]
    gates: list[Tensor]
    context: Tensor
    context_read: Tensor
    token_read: Tensor
    from_context: Tensor
    keep_reset: Tensor
    candidate: Tensor


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
        dims = start_BC.shape[1]
        w_c, w_x, bias = w_c.to(dtype), w_x.to(dtype), bias.to(dtype)
        rounds = [(gating[i].to(dtype), gating[i + 1].to(dtype)) for i in range(0, len(gating), 2)]
        keep = any(ctx.needs_input_grad)
        context = at_least_float32(start_BC)
        steps: list[_Step] = []
        contexts = []
        for x in at_least_float32(x_TBE).unbind(0):
            # Both as they are gated, and as products read them.
            values, narrow = [context, x], [context.to(dtype), x.to(dtype)]
            read, gated, gates = [], [], []
            for number, (weight, shift) in enumerate(rounds):
                reader, changed = number % 2, 1 - number % 2
                gate = at_least_float32(torch.addmm(shift, narrow[reader], weight.T)).sigmoid_()
                values[changed] = torch.mul(gate, values[changed]).mul_(2)
                read.append(narrow[reader])
                gated.append(values[changed])
                gates.append(gate)
                narrow[changed] = values[changed].to(dtype)
            of_context = narrow[0] @ w_c.T
            of_token = torch.addmm(bias, narrow[1], w_x.T)
            sums = of_context[:, : 2 * dims] + of_token[:, : 2 * dims]
            keep_reset = at_least_float32(sums).sigmoid_()
            from_context = at_least_float32(of_context[:, 2 * dims :])
            candidate = torch.addcmul(
                at_least_float32(of_token[:, 2 * dims :]), keep_reset[:, dims:], from_context
            ).tanh_()
            if keep:
                kept = (context, *narrow, from_context, keep_reset, candidate)
                steps.append(_Step(read, gated, gates, *kept))
            context = torch.lerp(candidate, context, keep_reset[:, :dims])
            contexts.append(context)
        ctx.steps, ctx.weights, ctx.rounds = steps, (w_c, w_x), rounds
        return torch.stack(contexts).to(start_BC.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_TBC: Tensor) -> tuple[Any, ...]:  # noqa: ANN401
        """Gradients in the order of `forward`."""
        steps, (w_c, w_x), rounds = ctx.steps, ctx.weights, ctx.rounds
        dtype, dims = w_c.dtype, w_c.shape[1]
        shape = len(steps), grad_TBC.shape[1]
        of_context = grad_TBC.new_empty(*shape, 3 * dims, dtype=dtype)
        of_token = torch.empty_like(of_context)
        of_gates = [grad_TBC.new_empty(*shape, len(shift), dtype=dtype) for _, shift in rounds]
        tokens = []
        grad_BC = torch.zeros_like(steps[0].context)
        for number in reversed(range(len(steps))):
            step = steps[number]
            grad_BC = grad_BC + grad_TBC[number]
            keep, reset = step.keep_reset.chunk(2, dim=-1)
            d_keep = _sigmoid_backward(grad_BC * (step.context - step.candidate), keep)
            d_candidate = _tanh_backward(
                torch.addcmul(grad_BC, grad_BC, keep, value=-1), step.candidate
            )
            d_reset = _sigmoid_backward(d_candidate * step.from_context, reset)
            d_sums = of_context[number], of_token[number]
            torch.cat([d_keep, d_reset, d_candidate * reset], dim=-1, out=d_sums[0])
            torch.cat([d_keep, d_reset, d_candidate], dim=-1, out=d_sums[1])
            d_values = [at_least_float32(d_sums[0] @ w_c), at_least_float32(d_sums[1] @ w_x)]
            for round_number in reversed(range(len(rounds))):
                reader, changed = round_number % 2, 1 - round_number % 2
                gate = step.gates[round_number]
                d_gate = d_values[changed] * step.gated[round_number] * (1 - gate)
                of_gates[round_number][number] = d_gate
                d_values[changed] = d_values[changed] * gate * 2
                d_read = of_gates[round_number][number] @ rounds[round_number][0]
                d_values[reader] = d_values[reader] + d_read
            tokens.append(d_values[1])
            grad_BC = torch.addcmul(d_values[0], grad_BC, keep)

        def gradients(grad: Tensor, read: list[Tensor]) -> tuple[Tensor, Tensor]:
            grad = grad.flatten(0, 1)
            summed = grad.sum(0, dtype=grad_BC.dtype)
            return at_least_float32(grad.T @ torch.cat(read)), summed

        found: list[Tensor] = []
        for round_number, grad in enumerate(of_gates):
            found += gradients(grad, [step.read[round_number] for step in steps])
        d_wc, _ = gradients(of_context, [step.context_read for step in steps])
        d_wx, d_bias = gradients(of_token, [step.token_read for step in steps])
        return (torch.stack(tokens[::-1]), grad_BC, None, d_wc, d_wx, d_bias, *found)


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
    contexts: Tensor = MogrifierUnroll.apply(
        x_TBE,
        start_BC,
        dtype,
        layer.context_weight,
        layer.token_weight,
        layer.bias,
        *(parameter for gate in layer.gating for parameter in (gate.weight, gate.bias)),
    )
    return contexts
