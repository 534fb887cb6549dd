"""Back-propagation through time of the residual update, written out.

The formulas are those of `CVFPLayer`; tests compare values and every gradient with autograd's. What
does not depend on the state is done for all tokens at once: the token's product in the first layer
before the recurrence, gradients of all weights after it. What is left of a step is small products
and nothing else.

Shapes: T tokens, B streams, C context_dim, E embed_dim, H = C + E, R rows of W that are used: C in
the last layer, whose new token nobody reads, and H in the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from newllm_core.model.by_core import read_by_core
from newllm_core.model.fused import full_rows
from newllm_core.model.layer import CVFPLayer
from newllm_core.model.narrow import as_read
from newllm_core.model.residual import mask, norm, norm_backward
from newllm_core.runtime.precision import at_least_float32


class _Parameters(NamedTuple):
    context_weight: Tensor
    token_weight: Tensor
    bias: Tensor
    gain_C: Tensor
    shift_C: Tensor
    gain_E: Tensor
    shift_E: Tensor


@dataclass
class _Norm:
    """One LayerNorm at every step: what it read, its statistics, the gradient that reached it."""

    z: list[Tensor] = field(default_factory=list)
    mean: list[Tensor] = field(default_factory=list)
    rstd: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)

    def forward(self, z: Tensor, gain: Tensor, shift: Tensor, *, keep: bool) -> Tensor:
        out, mean, rstd = norm(z, gain, shift)
        if keep:
            self.z.append(z)
            self.mean.append(mean)
            self.rstd.append(rstd)
        return out

    def backward(self, grad: Tensor, step: int, gain: Tensor) -> Tensor:
        """Gradient of `z`; steps come in reverse."""
        z = self.z[step]
        grad = grad.to(z.dtype)
        self.grads.append(grad)
        wanted = (True, False, False)
        return norm_backward(grad, z, self.mean[step], self.rstd[step], gain, wanted)[0]

    def parameter_gradients(self, gain: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of gain and shift over all steps."""
        if not self.grads:
            return None, None
        grads, z = torch.cat(self.grads[::-1]), torch.cat(self.z)
        mean, rstd = torch.cat(self.mean), torch.cat(self.rstd)
        return norm_backward(grads, z, mean, rstd, gain, (False, True, True))[1:]


@dataclass
class _Trace:
    """What the backward pass needs of one layer, a list entry per step."""

    context: list[Tensor] = field(default_factory=list)
    token: list[Tensor] = field(default_factory=list)
    u: list[Tensor] = field(default_factory=list)
    norm_context: _Norm = field(default_factory=_Norm)
    norm_token: _Norm = field(default_factory=_Norm)


class FusedUnroll(torch.autograd.Function):
    """Contexts of streams that read their tokens in lock-step; see `unroll_fused`."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        x_TBE: Tensor,
        start_BC: Tensor,
        dtype: torch.dtype,
        outputs: tuple[int, ...],
        *flat: Tensor,
    ) -> tuple[Tensor, ...]:
        """Contexts [T, B, C] after the layers numbered in `outputs`."""
        size = len(_Parameters._fields)
        layers = [_Parameters(*flat[i : i + size]) for i in range(0, len(flat), size)]
        dims = start_BC.shape[1]
        last = len(layers) - 1
        keep = any(ctx.needs_input_grad)
        x_TBE = x_TBE.to(dtype)
        weights = []
        for number, layer in enumerate(layers):
            rows = dims if number == last else None
            matrices = (layer.context_weight, layer.token_weight)
            parts = [as_read(matrix, dtype)[:rows] for matrix in matrices]
            weights.append([*parts, layer.bias[:rows].to(dtype)])
        _, w_x, bias = weights[0]
        from_token = torch.addmm(bias, x_TBE.flatten(0, 1), w_x.T).view(*x_TBE.shape[:2], -1)
        traces = [_Trace() for _ in layers]
        contexts: dict[int, list[Tensor]] = {number: [] for number in outputs}
        context = start_BC.to(dtype)
        for x, from_x in zip(x_TBE.unbind(0), from_token.unbind(0), strict=True):
            token = x
            for number, (layer, trace) in enumerate(zip(layers, traces, strict=True)):
                w_c, w_x, bias = weights[number]
                if number == 0:
                    u = torch.addmm(from_x, context, w_c.T).relu_()
                else:
                    u = torch.addmm(bias, context, w_c.T).addmm_(token, w_x.T).relu_()
                if keep:
                    trace.context.append(context)
                    trace.token.append(token)
                    trace.u.append(u)
                if number == last:
                    # What leaves the recurrence is accumulated: it is not rounded.
                    z = at_least_float32(context) + u
                else:
                    z = context + u[:, :dims]
                    z_token = token + u[:, dims:]
                    token = trace.norm_token.forward(
                        z_token, layer.gain_E, layer.shift_E, keep=keep
                    )
                context = trace.norm_context.forward(z, layer.gain_C, layer.shift_C, keep=keep)
                if number in contexts:
                    contexts[number].append(context)
            context = context.to(dtype)
        ctx.set_materialize_grads(False)
        ctx.layers, ctx.weights, ctx.traces, ctx.outputs = layers, weights, traces, outputs
        return tuple(torch.stack(contexts[number]).to(start_BC.dtype) for number in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:  # noqa: ANN401
        """Gradients in the order of `forward`."""
        layers, weights, traces = ctx.layers, ctx.weights, ctx.traces
        given = dict(zip(ctx.outputs, grads, strict=True))
        steps = range(len(traces[0].u))
        dims = layers[0].context_weight.shape[1]
        last = len(layers) - 1
        d_u = [
            torch.empty(
                len(steps), *trace.u[0].shape, dtype=trace.u[0].dtype, device=trace.u[0].device
            )
            for trace in traces
        ]
        d_first = []
        d_c = torch.zeros_like(traces[0].context[0])
        for step in reversed(steps):
            d_x: Tensor | None = None
            for number in range(last, -1, -1):
                layer, trace = layers[number], traces[number]
                w_c, w_x, _ = weights[number]
                grad = given.get(number)
                d_c = d_c if grad is None else d_c + grad[step]
                u, d_u_BR = trace.u[step], d_u[number][step]
                d_c = trace.norm_context.backward(d_c, step, layer.gain_C).to(u.dtype)
                mask(d_c, u[:, :dims], d_u_BR[:, :dims])
                if d_x is not None:
                    d_x = trace.norm_token.backward(d_x, step, layer.gain_E)
                    mask(d_x, u[:, dims:], d_u_BR[:, dims:])
                if number > 0:
                    d_x = d_u_BR @ w_x if d_x is None else d_x.addmm_(d_u_BR, w_x)
                elif d_x is not None:
                    d_first.append(d_x)
                d_c.addmm_(d_u_BR, w_c)
        d_token = None
        if ctx.needs_input_grad[0]:
            d_token = d_u[0].flatten(0, 1) @ weights[0][1]
            if d_first:
                d_token += torch.cat(d_first[::-1])
            d_token = at_least_float32(d_token).view(*d_u[0].shape[:2], -1)
        found: list[Tensor | None] = []
        for layer, trace, d_u_TBR in zip(layers, traces, d_u, strict=True):
            rows = len(layer.bias)
            d_u_NR = d_u_TBR.flatten(0, 1)
            found += [
                full_rows(d_u_NR.T @ torch.cat(trace.context), rows),
                full_rows(d_u_NR.T @ torch.cat(trace.token), rows),
                full_rows(d_u_NR.sum(0, dtype=layer.bias.dtype), rows),
                *trace.norm_context.parameter_gradients(layer.gain_C),
                *trace.norm_token.parameter_gradients(layer.gain_E),
            ]
        return (d_token, at_least_float32(d_c), None, None, *found)


def fused_layers(layers: Sequence[nn.Module]) -> list[CVFPLayer]:
    """`layers` if `unroll_fused` takes all of them, else none."""
    found = [layer for layer in layers if isinstance(layer, CVFPLayer) and layer.is_fused]
    return found if len(found) == len(layers) else []


def unroll_fused(
    layers: list[CVFPLayer],
    block_ends: list[int],
    x_TBE: Tensor,
    start_BC: Tensor,
    dtype: torch.dtype,
) -> list[Tensor]:
    """Contexts [T, B, C] after every block, of layers with the default update.

    Args:
        layers: of all blocks.
        block_ends: number of the last layer of each block.
        x_TBE: embedded tokens.
        start_BC: the contexts the streams come from.
        dtype: of matrix products and of what passes between them.
    """
    flat = [
        parameter
        for layer in layers
        for parameter in (
            layer.context_weight,
            layer.token_weight,
            layer.bias,
            layer.norm_context.weight,
            layer.norm_context.bias,
            layer.norm_token.weight,
            layer.norm_token.bias,
        )
    ]
    read = partial(_unroll, dtype, tuple(block_ends))
    return list(read_by_core(read, x_TBE, start_BC, *flat))


def _unroll(
    dtype: torch.dtype, outputs: tuple[int, ...], x_TBE: Tensor, start_BC: Tensor, *flat: Tensor
) -> tuple[Tensor, ...]:
    contexts: tuple[Tensor, ...] = FusedUnroll.apply(x_TBE, start_BC, dtype, outputs, *flat)
    return contexts
