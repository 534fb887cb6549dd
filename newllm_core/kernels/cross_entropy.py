"""Cross-entropy of a linear head without keeping its logits.

The gradient of the loss with respect to logits is known as soon as they are (softmax minus the
target), so the gradients of contexts and head follow at once, and neither logits nor anything of
their size is kept: it is the traffic to memory that costs.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits of so many (row, token) pairs exist at a time: enough for large matrix products, and on a
# GPU for few sums of the gradient of a large head.
LOGITS_AT_ONCE = {"cpu": 2**25, "gpu": 2**28}
# A column for the bias, and zeros that keep rows aligned.
COLUMNS_ADDED = 8
# Rows of the head are made a multiple of this, without which a GPU's products take several times as
# long; those that are added have no probability.
ROWS_OF_HEAD = 64
NEVER = -1e30


def cross_entropy(
    weight_VC: Tensor, bias_V: Tensor, contexts_NC: Tensor, targets_N: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute nats, see `plain_cross_entropy`; products are those of autocast, if any.

    Probabilities are rounded as products are: in bfloat16 nats of a token are off by up to .004. A
    token has at most 87 of them: a smaller probability counts as the smallest.
    """
    device = contexts_NC.device.type
    narrow = torch.is_autocast_enabled(device) and contexts_NC.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if narrow else contexts_NC.dtype
    with torch.autocast(device, enabled=False):  # which would make softmax in float32
        return _LinearCrossEntropy.apply(contexts_NC, weight_VC, bias_V, targets_N, dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        contexts_NC: Tensor,
        weight_VC: Tensor,
        bias_V: Tensor,
        all_targets_N: Tensor,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        needs_contexts, *needs_head = ctx.needs_input_grad[:3]
        dims, vocab_size = contexts_NC.shape[1], len(weight_VC)
        # The bias is one more column of the head, read by a context of one: its gradient comes out
        # of the product that the head needs anyway. A sum over all logits would take much longer.
        inputs_NK = _joined(contexts_NC, contexts_NC.new_ones(()), dtype)
        head_VK = _joined(weight_VC, bias_V, dtype, multiple=ROWS_OF_HEAD)
        head_VK[vocab_size:, dims] = NEVER
        wide = torch.promote_types(dtype, torch.float32)
        nats_N = inputs_NK.new_empty(len(inputs_NK), dtype=wide)
        grad_contexts = torch.empty_like(contexts_NC) if needs_contexts else None
        grad_head = None
        kind = "cpu" if contexts_NC.device.type == "cpu" else "gpu"
        rows = max(1, LOGITS_AT_ONCE[kind] // len(head_VK))
        space_nV = inputs_NK.new_empty(min(rows, len(inputs_NK)), len(head_VK))
        for begin in range(0, max(1, len(inputs_NK)), rows):
            here = slice(begin, begin + rows)
            part_NK, targets_N = inputs_NK[here], all_targets_N[here]
            logits_NV = torch.mm(part_NK, head_VK.T, out=space_nV[: len(part_NK)])
            # Processors and CUDA read a logit for the last time before they write in its place;
            # Metal promises nothing.
            place_NV = None if logits_NV.device.type == "mps" else logits_NV
            gradient_NV = torch.softmax(logits_NV, -1, out=place_NV)
            of_tokens_NV = gradient_NV[:, :vocab_size]  # no target is beyond them
            chances_N = of_tokens_NV.gather(1, targets_N[:, None])[:, 0]
            nats_N[here] = -chances_N.to(wide).clamp(min=torch.finfo(dtype).tiny).log()
            of_tokens_NV[torch.arange(len(part_NK), device=part_NK.device), targets_N] -= 1
            if grad_contexts is not None:
                grad_contexts[here] = (gradient_NV @ head_VK)[:, :dims]
            if any(needs_head):
                product_VK = gradient_NV.T @ part_NK
                grad_head = product_VK.to(wide) if grad_head is None else grad_head.add_(product_VK)
        ctx.num_rows = max(1, len(contexts_NC))
        of_head: tuple[Tensor | None, ...] = (None, None)
        if grad_head is not None:
            of_head = grad_head[:vocab_size, :dims], grad_head[:vocab_size, dims]
        ctx.save_for_backward(grad_contexts, *of_head)
        ctx.mark_non_differentiable(nats_N)
        return nats_N.mean(), nats_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        scale = grad / ctx.num_rows
        gradients = (g if g is None else g * scale.to(g.dtype) for g in ctx.saved_tensors)
        return (*gradients, None, None)


def _joined(matrix: Tensor, column: Tensor, dtype: torch.dtype, *, multiple: int = 1) -> Tensor:
    """Make `[matrix ; column ; 0]` in `dtype`, rows and columns as many as products like."""
    rows, width = matrix.shape
    joined = matrix.new_empty(-(-rows // multiple) * multiple, width + COLUMNS_ADDED, dtype=dtype)
    joined[:rows, :width] = matrix
    joined[:rows, width] = column
    joined[:rows, width + 1 :] = 0
    joined[rows:] = 0
    return joined
