"""Cross-entropy of a linear head without keeping its logits.

The gradient of the loss with respect to logits is known as soon as they are (softmax minus the
target), so it is made in their place, and the gradients of contexts and head follow at once. The
work between the matrix products is done on slices that stay in the processor's cache: it is the
traffic to memory that costs.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Logits of so many (row, token) pairs exist at a time: enough for large matrix products.
LOGITS_AT_ONCE = 2**25
# And so many in float32: they fit into the second-level cache of a core or two.
LOGITS_IN_CACHE = 2**19


def token_loss(head: nn.Linear, contexts_NC: Tensor, targets_N: Tensor) -> Tensor:
    """Mean nats per token, computed in float32 at least."""
    loss: Tensor = _LinearCrossEntropy.apply(
        contexts_NC, head.weight, head.bias, targets_N, _product_dtype(contexts_NC)
    )
    return loss


def _product_dtype(contexts_NC: Tensor) -> torch.dtype:
    """What matrix products round to (see `precision`): logits are kept in it as well."""
    narrow = torch.get_float32_matmul_precision() == "medium" and contexts_NC.device.type == "cpu"
    return torch.bfloat16 if narrow and contexts_NC.dtype == torch.float32 else contexts_NC.dtype


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        contexts_NC: Tensor,
        weight_VC: Tensor,
        bias_V: Tensor,
        targets_N: Tensor,
        dtype: torch.dtype,
    ) -> Tensor:
        needs_contexts, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_contexts = torch.empty_like(contexts_NC) if needs_contexts else None
        grad_weight = torch.zeros_like(weight_VC) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias else None
        total = contexts_NC.new_zeros((), dtype=torch.float64)
        narrow_NC, weight_VC = contexts_NC.to(dtype), weight_VC.to(dtype)
        rows = max(1, LOGITS_AT_ONCE // len(weight_VC))
        for begin in range(0, len(contexts_NC), rows):
            part_NC = narrow_NC[begin : begin + rows]
            logits_NV = torch.addmm(bias_V.to(dtype), part_NC, weight_VC.T)
            total += _to_gradient(logits_NV, targets_N[begin : begin + rows])
            gradient_NV = logits_NV
            if grad_contexts is not None:
                grad_contexts[begin : begin + rows] = gradient_NV @ weight_VC
            if grad_weight is not None:
                grad_weight += gradient_NV.T @ part_NC
            if grad_bias is not None:
                # A product sums rows several times faster than a sum does.
                grad_bias += gradient_NV.T @ gradient_NV.new_ones(len(gradient_NV))
        ctx.num_rows = len(contexts_NC)
        ctx.save_for_backward(grad_contexts, grad_weight, grad_bias)
        mean = total / len(contexts_NC)
        return mean if contexts_NC.dtype == torch.float64 else mean.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        scale = grad / ctx.num_rows
        gradients = (g if g is None else g * scale.to(g.dtype) for g in ctx.saved_tensors)
        return (*gradients, None, None)


def _to_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Turn logits into softmax minus target, in place; returns the summed nats in float64."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    nats = logits_NV.new_zeros((), dtype=torch.float64)
    rows = max(1, LOGITS_IN_CACHE // logits_NV.shape[1])
    for slice_NV, targets in zip(logits_NV.split(rows), targets_N.split(rows), strict=True):
        places = targets[:, None]
        softmax_NV = torch.softmax(slice_NV, -1, dtype=wide)
        # The largest probability is exp(largest logit) / Σ exp: it says what the sum was, without
        # a second pass of exponentials and without underflow.
        largest_N1 = slice_NV.amax(-1, keepdim=True).to(wide)
        normaliser_N1 = largest_N1 - softmax_NV.amax(-1, keepdim=True).log()
        nats_N1 = normaliser_N1 - slice_NV.gather(1, places).to(wide)
        nats += nats_N1.sum(dtype=torch.float64)
        softmax_NV.scatter_(1, places, torch.expm1(-nats_N1))
        slice_NV.copy_(softmax_NV)
    return nats
