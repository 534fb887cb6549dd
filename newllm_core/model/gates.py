"""What `MogrifierLayer` does between its matrix products, and its gradients: two ways.

`operations` chooses: loops in C where they were compiled, else the same in torch. Everything is
written to where it is kept. `sum`, `of_context`, `of_token` and what products read next are in the
dtype of products; everything else is float32 at least.

Shapes: B streams, C context_dim, H width of what a round of gating changes.
"""

from typing import Protocol

import torch
from torch import Tensor

from newllm_core import native
from newllm_core.runtime.precision import at_least_float32

_sigmoid_backward = torch.ops.aten.sigmoid_backward
_tanh_backward = torch.ops.aten.tanh_backward


class Operations(Protocol):
    """Both ways."""

    @staticmethod
    def gate(
        sum_BH: Tensor, value_BH: Tensor, gate_BH: Tensor, gated_BH: Tensor, narrow_BH: Tensor
    ) -> None:
        """`gate = σ(sum)`, `gated = 2 gate value`, `narrow` the same for products."""

    @staticmethod
    def gate_backward(
        grad_BH: Tensor, gate_BH: Tensor, gated_BH: Tensor, of_sum_BH: Tensor
    ) -> None:
        """The gradient of `gated` becomes that of `value`; that of `sum` goes to `of_sum`."""

    @staticmethod
    def cell(
        of_context_B3C: Tensor,
        of_token_B3C: Tensor,
        context_BC: Tensor,
        keep_reset_B2C: Tensor,
        candidate_BC: Tensor,
        updated_BC: Tensor,
        narrow_BC: Tensor,
    ) -> None:
        """`k, r = σ` of two thirds of the sum, `h = tanh(h_x + r h_c)`, `c' = k c + (1 - k) h`."""

    @staticmethod
    def cell_backward(
        grad_BC: Tensor,
        carried_BC: Tensor,
        of_context_B3C: Tensor,
        context_BC: Tensor,
        keep_reset_B2C: Tensor,
        candidate_BC: Tensor,
        grad_of_context_B3C: Tensor,
        grad_of_token_B3C: Tensor,
    ) -> None:
        """The gradient of c' is `grad + carried`; `carried` becomes `k` times that."""


def operations(dtype: torch.dtype, tensor: Tensor) -> type[Operations]:
    """The faster way that can work on products in `dtype` and a float tensor like this one."""
    return _Compiled if dtype in native.DTYPES and native.suits(tensor) else _Plain


class _Compiled:
    """In C."""

    @staticmethod
    def gate(
        sum_BH: Tensor, value_BH: Tensor, gate_BH: Tensor, gated_BH: Tensor, narrow_BH: Tensor
    ) -> None:
        tensors = (sum_BH, value_BH, gate_BH, gated_BH, narrow_BH)
        native.call("gate", *tensors, sum_BH.numel(), dtype=sum_BH.dtype)

    @staticmethod
    def gate_backward(
        grad_BH: Tensor, gate_BH: Tensor, gated_BH: Tensor, of_sum_BH: Tensor
    ) -> None:
        tensors = (grad_BH, gate_BH, gated_BH, of_sum_BH)
        native.call("gate_backward", *tensors, grad_BH.numel(), dtype=of_sum_BH.dtype)

    @staticmethod
    def cell(of_context_B3C: Tensor, *others: Tensor) -> None:
        context_BC = others[1]
        shape, dtype = context_BC.shape, of_context_B3C.dtype
        native.call("cell", of_context_B3C, *others, *shape, dtype=dtype)

    @staticmethod
    def cell_backward(grad_BC: Tensor, carried_BC: Tensor, *others: Tensor) -> None:
        dtype = others[0].dtype
        native.call("cell_backward", grad_BC, carried_BC, *others, *grad_BC.shape, dtype=dtype)


class _Plain:
    """In torch."""

    @staticmethod
    def gate(
        sum_BH: Tensor, value_BH: Tensor, gate_BH: Tensor, gated_BH: Tensor, narrow_BH: Tensor
    ) -> None:
        torch.sigmoid(at_least_float32(sum_BH), out=gate_BH)
        torch.mul(gate_BH, value_BH, out=gated_BH).mul_(2)
        narrow_BH.copy_(gated_BH)

    @staticmethod
    def gate_backward(
        grad_BH: Tensor, gate_BH: Tensor, gated_BH: Tensor, of_sum_BH: Tensor
    ) -> None:
        of_sum_BH.copy_(grad_BH * gated_BH * (1 - gate_BH))
        grad_BH.mul_(gate_BH).mul_(2)

    @staticmethod
    def cell(
        of_context_B3C: Tensor,
        of_token_B3C: Tensor,
        context_BC: Tensor,
        keep_reset_B2C: Tensor,
        candidate_BC: Tensor,
        updated_BC: Tensor,
        narrow_BC: Tensor,
    ) -> None:
        dims = context_BC.shape[1]
        c, x = at_least_float32(of_context_B3C), at_least_float32(of_token_B3C)
        torch.sigmoid(c[:, : 2 * dims] + x[:, : 2 * dims], out=keep_reset_B2C)
        keep, reset = keep_reset_B2C.chunk(2, dim=-1)
        sums = torch.addcmul(x[:, 2 * dims :], reset, c[:, 2 * dims :])
        torch.tanh(sums, out=candidate_BC)
        torch.lerp(candidate_BC, context_BC, keep, out=updated_BC)
        narrow_BC.copy_(updated_BC)

    @staticmethod
    def cell_backward(
        grad_BC: Tensor,
        carried_BC: Tensor,
        of_context_B3C: Tensor,
        context_BC: Tensor,
        keep_reset_B2C: Tensor,
        candidate_BC: Tensor,
        grad_of_context_B3C: Tensor,
        grad_of_token_B3C: Tensor,
    ) -> None:
        dims = grad_BC.shape[1]
        grad_BC = grad_BC + carried_BC
        keep, reset = keep_reset_B2C.chunk(2, dim=-1)
        d_keep = _sigmoid_backward(grad_BC * (context_BC - candidate_BC), keep)
        of_candidate = torch.addcmul(grad_BC, grad_BC, keep, value=-1)
        d_candidate = _tanh_backward(of_candidate, candidate_BC)
        from_context = at_least_float32(of_context_B3C[:, 2 * dims :])
        d_reset = _sigmoid_backward(d_candidate * from_context, reset)
        grad_of_context_B3C.copy_(torch.cat([d_keep, d_reset, d_candidate * reset], dim=-1))
        grad_of_token_B3C.copy_(torch.cat([d_keep, d_reset, d_candidate], dim=-1))
        torch.mul(grad_BC, keep, out=carried_BC)
