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
# A column for the bias, and zeros that keep rows aligned.
COLUMNS_ADDED = 8
# Smaller ones say too little about their own logarithm, or are zero.
LEAST_PROBABILITY = 1e-30


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
        dims = contexts_NC.shape[1]
        # The bias is one more column of the head, read by a context of one: its gradient comes out
        # of the product that the head needs anyway. A sum over all logits would take much longer.
        inputs_NK = _joined(contexts_NC, contexts_NC.new_ones(()), dtype)
        head_VK = _joined(weight_VC, bias_V, dtype)
        grad_contexts = torch.empty_like(contexts_NC) if needs_contexts else None
        grad_head = torch.zeros_like(head_VK, dtype=weight_VC.dtype)
        total = contexts_NC.new_zeros((), dtype=torch.float64)
        rows = max(1, LOGITS_AT_ONCE // len(weight_VC))
        for begin in range(0, len(contexts_NC), rows):
            part_NK = inputs_NK[begin : begin + rows]
            logits_NV = part_NK @ head_VK.T
            total += _to_gradient(logits_NV, targets_N[begin : begin + rows])
            gradient_NV = logits_NV
            if grad_contexts is not None:
                grad_contexts[begin : begin + rows] = (gradient_NV @ head_VK)[:, :dims]
            if needs_weight or needs_bias:
                grad_head += gradient_NV.T @ part_NK
        ctx.num_rows = len(contexts_NC)
        ctx.save_for_backward(
            grad_contexts,
            grad_head[:, :dims] if needs_weight else None,
            grad_head[:, dims] if needs_bias else None,
        )
        mean = total / len(contexts_NC)
        return mean if contexts_NC.dtype == torch.float64 else mean.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        scale = grad / ctx.num_rows
        gradients = (g if g is None else g * scale.to(g.dtype) for g in ctx.saved_tensors)
        return (*gradients, None, None)


def _joined(matrix: Tensor, column: Tensor, dtype: torch.dtype) -> Tensor:
    """`[matrix ; column ; 0]` in `dtype`, as wide as products like it."""
    width = matrix.shape[1]
    joined = matrix.new_zeros(len(matrix), width + COLUMNS_ADDED, dtype=dtype)
    joined[:, :width] = matrix
    joined[:, width] = column
    return joined


def _to_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Turn logits into softmax minus target, in place; returns the summed nats in float64."""
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    nats = logits_NV.new_zeros((), dtype=torch.float64)
    rows = max(1, LOGITS_IN_CACHE // logits_NV.shape[1])
    for slice_NV, targets in zip(logits_NV.split(rows), targets_N.split(rows), strict=True):
        places = targets[:, None]
        softmax_NV = torch.softmax(slice_NV, -1, dtype=wide)
        reached_N1 = softmax_NV.gather(1, places)
        nats_N1 = -reached_N1.log()
        if (vanished_N := reached_N1[:, 0] < LEAST_PROBABILITY).any():
            lost = torch.log_softmax(slice_NV[vanished_N], -1, dtype=wide)
            nats_N1[vanished_N] = -lost.gather(1, places[vanished_N])
        nats += nats_N1.sum(dtype=torch.float64)
        softmax_NV.scatter_(1, places, reached_N1 - 1)
        slice_NV.copy_(softmax_NV)
    return nats
