"""Cross-entropy of a linear head without keeping its logits.

The gradient of the loss with respect to logits is known as soon as they are (softmax minus the
target), so it is made in their place, a slice of rows at a time, and the gradients of contexts and
head follow at once. That saves several passes over the largest tensor of the whole model, and
memory stays bounded for any vocabulary and any number of heads.

Shapes: N rows (tokens), C context_dim, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Logits of so many (row, token) pairs exist at a time.
LOGITS_AT_ONCE = 2**23


def token_loss(head: nn.Linear, contexts_NC: Tensor, targets_N: Tensor) -> Tensor:
    """Mean nats per token, computed in float32 at least."""
    loss: Tensor = _LinearCrossEntropy.apply(contexts_NC, head.weight, head.bias, targets_N)
    return loss


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        contexts_NC: Tensor,
        weight_VC: Tensor,
        bias_V: Tensor,
        targets_N: Tensor,
    ) -> Tensor:
        needs_contexts, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_contexts = torch.empty_like(contexts_NC) if needs_contexts else None
        grad_weight = torch.zeros_like(weight_VC) if needs_weight else None
        grad_bias = torch.zeros_like(bias_V) if needs_bias else None
        total = contexts_NC.new_zeros((), dtype=torch.float64)
        rows = max(1, LOGITS_AT_ONCE // len(weight_VC))
        for begin in range(0, len(contexts_NC), rows):
            part_NC, targets = contexts_NC[begin : begin + rows], targets_N[begin : begin + rows]
            logits_NV = torch.addmm(bias_V, part_NC, weight_VC.T)
            if logits_NV.dtype != torch.float64:
                logits_NV = logits_NV.float()
            logits_NV = torch.log_softmax(logits_NV, -1)
            places = targets[:, None]
            total -= logits_NV.gather(1, places).sum(dtype=torch.float64)
            if not any(ctx.needs_input_grad[:3]):
                continue
            gradient_NV = logits_NV.exp_()
            gradient_NV.scatter_add_(
                1, places, gradient_NV.new_full((1, 1), -1.0).expand_as(places)
            )
            gradient_NV = gradient_NV.to(weight_VC.dtype)
            if grad_contexts is not None:
                torch.mm(gradient_NV, weight_VC, out=grad_contexts[begin : begin + rows])
            if grad_weight is not None:
                grad_weight.addmm_(gradient_NV.T, part_NC)
            if grad_bias is not None:
                grad_bias += gradient_NV.sum(0)
        ctx.num_rows = len(contexts_NC)
        ctx.save_for_backward(grad_contexts, grad_weight, grad_bias)
        mean = total / len(contexts_NC)
        return mean if weight_VC.dtype == torch.float64 else mean.float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        scale = grad / ctx.num_rows
        gradients = (g if g is None else g * scale.to(g.dtype) for g in ctx.saved_tensors)
        return (*gradients, None)
