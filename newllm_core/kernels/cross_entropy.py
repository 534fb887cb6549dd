"""Cross-entropy of a linear head without keeping its logits.

The gradient of the loss with respect to logits is known as soon as they are (softmax minus the
target), so it is made in their place, and the gradients of contexts and head follow at once. The
work between the matrix products is done a row at a time, which stays in the processor's cache: it
is the traffic to memory that costs. Every thread has rows of its own.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from newllm_core.kernels import compiled

# Logits of so many (row, token) pairs exist at a time: enough for large matrix products.
LOGITS_AT_ONCE = 2**25
# A thread that has fewer to make is not worth starting.
LEAST_LOGITS = 2**19
# A column for the bias, and zeros that keep rows aligned.
COLUMNS_ADDED = 8


def cross_entropy(
    weight_VC: Tensor, bias_V: Tensor, contexts_NC: Tensor, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute nats, see `plain_cross_entropy`; products are those of autocast, if any."""
    device = contexts_NC.device.type
    narrow = torch.is_autocast_enabled(device) and contexts_NC.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if narrow else contexts_NC.dtype
    return _LinearCrossEntropy.apply(contexts_NC, weight_VC, bias_V, targets_N, dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        contexts_NC: Tensor,
        weight_VC: Tensor,
        bias_V: Tensor,
        targets_N: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        needs_contexts, *needs_head = ctx.needs_input_grad[:3]
        dims = contexts_NC.shape[1]
        # The bias is one more column of the head, read by a context of one: its gradient comes out
        # of the product that the head needs anyway. A sum over all logits would take much longer.
        inputs_NK = _joined(contexts_NC, contexts_NC.new_ones(()), dtype)
        head_VK = _joined(weight_VC, bias_V, dtype)
        wide = torch.promote_types(dtype, torch.float32)
        nats_N = inputs_NK.new_empty(len(inputs_NK), dtype=wide)
        grad_contexts = torch.empty_like(contexts_NC) if needs_contexts else None
        grad_head = torch.zeros_like(head_VK, dtype=weight_VC.dtype) if any(needs_head) else None
        rows = max(1, LOGITS_AT_ONCE // len(head_VK))
        space_nV = inputs_NK.new_empty(min(rows, len(inputs_NK)), len(head_VK))
        for begin in range(0, len(inputs_NK), rows):
            here = slice(begin, begin + rows)
            part_NK = inputs_NK[here]
            gradient_NV = torch.mm(part_NK, head_VK.T, out=space_nV[: len(part_NK)])
            nats_N[here] = _to_gradient(gradient_NV, targets_N[here])
            if grad_contexts is not None:
                grad_contexts[here] = (gradient_NV @ head_VK)[:, :dims]
            if grad_head is not None:
                grad_head += gradient_NV.T @ part_NK
        ctx.num_rows = max(1, len(contexts_NC))
        of_head = (None, None) if grad_head is None else (grad_head[:, :dims], grad_head[:, dims])
        ctx.save_for_backward(grad_contexts, *of_head)
        ctx.mark_non_differentiable(nats_N)
        return nats_N.mean(dtype=torch.float64).to(nats_N), nats_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        scale = grad / ctx.num_rows
        gradients = (g if g is None else g * scale.to(g.dtype) for g in ctx.saved_tensors)
        return (*gradients, None, None)


def _joined(matrix: Tensor, column: Tensor, dtype: torch.dtype) -> Tensor:
    """Make `[matrix ; column ; 0]` in `dtype`, as wide as products like it."""
    width = matrix.shape[1]
    joined = matrix.new_empty(len(matrix), width + COLUMNS_ADDED, dtype=dtype)
    joined[:, :width] = matrix
    joined[:, width] = column
    joined[:, width + 1 :] = 0
    return joined


def _to_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Turn logits into softmax minus target, in place; returns nats [N]."""
    targets_N = targets_N.long().contiguous()
    count = min(torch.get_num_threads(), logits_NV.numel() // LEAST_LOGITS)
    if count < 2:
        return compiled.softmax_gradient(logits_NV, targets_N)
    shares = logits_NV.tensor_split(count), targets_N.tensor_split(count)
    # Threads are started anew for each call: a tenth of a millisecond, and nothing is left behind.
    with ThreadPoolExecutor(count) as pool:
        return torch.cat(list(pool.map(compiled.softmax_gradient, *shares)))
