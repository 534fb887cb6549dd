"""Cross-entropy of a linear head without keeping its logits.

The gradient of the loss with respect to logits is known as soon as they are (softmax minus the
target), so it is made in their place, and the gradients of contexts and head follow at once. The
work between the matrix products is done on slices that stay in the processor's cache: it is the
traffic to memory that costs. Every thread has rows of its own and makes all operations on them.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from newllm_core.kernels import compiled

# Logits of so many (row, token) pairs exist at a time: enough for large matrix products.
LOGITS_AT_ONCE = 2**25
# And so many in float32: they fit into the second-level cache of a core.
LOGITS_IN_CACHE = 2**18
# A thread that has fewer to make is not worth starting.
LEAST_LOGITS = 2**19
# A column for the bias, and zeros that keep rows aligned.
COLUMNS_ADDED = 8
# Smaller ones say too little about their own logarithm, or are zero.
LEAST_PROBABILITY = 1e-30


def cross_entropy(head: nn.Linear, contexts_NC: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """Compute nats, see `plain_cross_entropy`; products are those of autocast, if any."""
    device = contexts_NC.device.type
    narrow = torch.is_autocast_enabled(device) and contexts_NC.dtype != torch.float64
    dtype = torch.get_autocast_dtype(device) if narrow else contexts_NC.dtype
    made: tuple[Tensor, Tensor] = _LinearCrossEntropy.apply(
        contexts_NC, head.weight, head.bias, targets_N, dtype
    )
    return made


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
        needs_contexts, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        dims = contexts_NC.shape[1]
        # The bias is one more column of the head, read by a context of one: its gradient comes out
        # of the product that the head needs anyway. A sum over all logits would take much longer.
        inputs_NK = _joined(contexts_NC, contexts_NC.new_ones(()), dtype)
        head_VK = _joined(weight_VC, bias_V, dtype)
        grad_contexts = torch.empty_like(contexts_NC) if needs_contexts else None
        parts = _shares(len(targets_N), LEAST_LOGITS // len(head_VK))
        rows = max(1, LOGITS_AT_ONCE // len(parts) // len(head_VK))
        tasks = [
            partial(
                _part,
                inputs_NK[part],
                head_VK,
                targets_N[part],
                # Threads of their own return large blocks to the system.
                inputs_NK.new_empty(min(rows, part.stop - part.start), len(head_VK)),
                None if grad_contexts is None else grad_contexts[part],
                weight_VC.dtype if needs_weight or needs_bias else None,
            )
            for part in parts
        ]
        (first_N, grad_head), *others = _at_once(tasks)
        nats_N = torch.cat([first_N, *(nats_N for nats_N, _ in others)])
        for _, gradient in others:
            if grad_head is not None and gradient is not None:
                grad_head += gradient
        if grad_head is None and (needs_weight or needs_bias):  # no row at all
            grad_head = torch.zeros_like(head_VK, dtype=weight_VC.dtype)
        ctx.num_rows = max(1, len(contexts_NC))
        ctx.save_for_backward(
            grad_contexts,
            grad_head[:, :dims] if grad_head is not None and needs_weight else None,
            grad_head[:, dims] if grad_head is not None and needs_bias else None,
        )
        ctx.mark_non_differentiable(nats_N)
        return nats_N.mean(dtype=torch.float64).to(nats_N), nats_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        scale = grad / ctx.num_rows
        gradients = (g if g is None else g * scale.to(g.dtype) for g in ctx.saved_tensors)
        return (*gradients, None, None)


def _shares(rows: int, least: int) -> list[slice]:
    """Divide `rows` among the threads that torch may use, none with fewer than `least`."""
    count = max(1, min(torch.get_num_threads(), rows // max(1, least)))
    bounds = [rows * part // count for part in range(count + 1)]
    return [slice(begin, end) for begin, end in pairwise(bounds)]


def _at_once(tasks: list[partial[tuple[Tensor, Tensor | None]]]) -> list[Any]:
    """Return what all tasks give, each in a thread of its own whose operations use one core."""
    if len(tasks) == 1:
        return [tasks[0]()]
    # Threads are started anew for each call: a tenth of a millisecond, and nothing is left behind.
    with ThreadPoolExecutor(len(tasks), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(lambda task: task(), tasks))


@torch.no_grad()
def _part(
    inputs_NK: Tensor,
    head_VK: Tensor,
    targets_N: Tensor,
    space_nV: Tensor,
    grad_contexts_NC: Tensor | None,
    grad_dtype: torch.dtype | None,
) -> tuple[Tensor, Tensor | None]:
    """Score some of the rows: nats [N], gradient of the head [V, K] in `grad_dtype` if any.

    The gradient of contexts goes where it is wanted; logits are made in `space_nV`, n at a time.
    """
    nats = []
    grad_head = None
    rows = max(1, len(space_nV))
    for begin in range(0, len(inputs_NK), rows):
        part_NK = inputs_NK[begin : begin + rows]
        logits_NV = torch.mm(part_NK, head_VK.T, out=space_nV[: len(part_NK)])
        nats.append(_to_gradient(logits_NV, targets_N[begin : begin + rows]))
        gradient_NV = logits_NV
        if grad_contexts_NC is not None:
            grad_NK = gradient_NV @ head_VK
            grad_contexts_NC[begin : begin + rows] = grad_NK[:, : grad_contexts_NC.shape[1]]
        if grad_dtype is not None:
            gradient_VK = gradient_NV.T @ part_NK
            grad_head = (
                gradient_VK.to(grad_dtype) if grad_head is None else grad_head.add_(gradient_VK)
            )
    wide = torch.promote_types(inputs_NK.dtype, torch.float32)
    return torch.cat([*nats, inputs_NK.new_empty(0, dtype=wide)]), grad_head


def _joined(matrix: Tensor, column: Tensor, dtype: torch.dtype) -> Tensor:
    """Make `[matrix ; column ; 0]` in `dtype`, as wide as products like it."""
    width = matrix.shape[1]
    joined = matrix.new_empty(len(matrix), width + COLUMNS_ADDED, dtype=dtype)
    joined[:, :width] = matrix
    joined[:, width] = column
    joined[:, width + 1 :] = 0
    return joined


def _to_gradient(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    """Turn logits into softmax minus target, in place; returns nats in float32 at least [N]."""
    targets_N = targets_N.long().contiguous()
    if logits_NV.is_cpu and logits_NV.dtype in compiled.DTYPES and compiled.is_usable():
        return compiled.softmax_gradient(logits_NV, targets_N)
    return _to_gradient_in_torch(logits_NV, targets_N)


def _to_gradient_in_torch(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    wide = torch.promote_types(logits_NV.dtype, torch.float32)
    nats_N1 = logits_NV.new_empty(len(logits_NV), 1, dtype=wide)
    rows = max(1, LOGITS_IN_CACHE // logits_NV.shape[1])
    space_NV = torch.empty_like(logits_NV[:rows], dtype=wide)
    for begin in range(0, len(logits_NV), rows):
        here = slice(begin, begin + rows)
        slice_NV, places = logits_NV[here], targets_N[here, None]
        softmax_NV = torch.softmax(slice_NV, -1, dtype=wide, out=space_NV[: len(slice_NV)])
        reached_N1 = softmax_NV.gather(1, places)
        nats_N1[here] = -reached_N1.log()
        if (vanished_N := reached_N1[:, 0] < LEAST_PROBABILITY).any():
            lost = torch.log_softmax(slice_NV[vanished_N], -1, dtype=wide)
            nats_N1[here][vanished_N] = -lost.gather(1, places[vanished_N])
        softmax_NV.scatter_(1, places, reached_N1 - 1)
        slice_NV.copy_(softmax_NV)
    return nats_N1[:, 0]
