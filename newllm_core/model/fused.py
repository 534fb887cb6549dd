"""The residual update with its gradient written out: fewer passes over memory than autograd's.

The formulas are those of `CVFPLayer`; tests compare values and every gradient with the naive
reference. Matrix products are made in the dtype of the context (bfloat16 or float32); parameters
and their gradients keep their own, and the last context is float32 at least.

Shapes: N rows, C context_dim, E embed_dim, H = C + E.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from newllm_core.cores import at_once
from newllm_core.model import residual
from newllm_core.model.narrow import keep_narrow
from newllm_core.model.one_row import keep_apart, product, product_backward
from newllm_core.model.residual import Reached, Side
from newllm_core.runtime.precision import at_least_float32


class FusedUpdate(torch.autograd.Function):
    """`(c, x) -> norm_c(c + u[:C]), norm_x(x + u[C:])` with `u = ReLU(W_c c + W_x x + b)`.

    Saves one [N, H] tensor instead of three: the ReLU's output is also its mask. Products
    accumulate into buffers that exist already, and no gradient is made for an input that needs
    none.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - what torch passes
        c_NC: Tensor,
        x_NE: Tensor,
        context_weight: Tensor,
        token_weight: Tensor,
        bias: Tensor,
        gain_C: Tensor,
        shift_C: Tensor,
        gain_E: Tensor | None,
        shift_E: Tensor | None,
        w_c: Tensor,
        w_x: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """Make products with `w_c` and `w_x`: the weights in the dtype of the context.

        Without `gain_E` this is the last layer: nobody reads the token after it.
        """
        dims = c_NC.shape[1]
        last = gain_E is None
        if last:
            w_c, w_x, bias = w_c[:dims], w_x[:dims], bias[:dims]
        bias = bias.to(c_NC.dtype)
        if len(c_NC) == 1:
            of_c, of_x = at_once(partial(product, c_NC, w_c), partial(product, x_NE, w_x))
            u_NH = of_c.add_(of_x).add_(bias)
        else:
            u_NH = torch.addmm(bias, c_NC, w_c.T).addmm_(x_NE, w_x.T)
        sides = [Side(c_NC, u_NH[:, :dims], gain_C, shift_C, wide=last)]
        saved = [c_NC, x_NE, w_c, w_x, u_NH, gain_C]
        if gain_E is not None and shift_E is not None:
            sides.append(Side(x_NE, u_NH[:, dims:], gain_E, shift_E, wide=False))
        (new_c, *of_norm), *of_token = residual.forward(sides)
        saved += of_norm
        new_x = None
        if gain_E is not None:
            new_x, *of_norm = of_token[0]
            saved += [gain_E, *of_norm]
        ctx.save_for_backward(*saved)
        ctx.set_materialize_grads(False)
        ctx.matrices = context_weight, token_weight
        return new_c, new_x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        """Gradients of the inputs, in the order of `forward`."""
        c_NC, x_NE, w_c, w_x, u_NH, gain_C, mean_c, rstd_c, *of_token = ctx.saved_tensors
        grad_c, grad_x = grads
        dims = c_NC.shape[1]
        # Where no gradient came back through the token, its rows of W have none either.
        rows = dims if grad_x is None else u_NH.shape[1]
        d_u = torch.empty_like(u_NH[:, :rows])
        grad_c = torch.zeros_like(c_NC) if grad_c is None else grad_c
        sides = [
            Reached(grad_c, c_NC, u_NH[:, :dims], gain_C, mean_c, rstd_c, d_u[:, :dims]),
        ]
        if grad_x is not None:
            gain_E, mean_x, rstd_x = of_token
            sides.append(
                Reached(grad_x, x_NE, u_NH[:, dims:], gain_E, mean_x, rstd_x, d_u[:, dims:])
            )
        (d_c, grad_C, shift_C, bias), *of_sides = residual.backward(sides)
        d_x = grad_E = shift_E = None
        if of_sides:
            d_x, grad_E, shift_E, of_rest = of_sides[0]
            bias = torch.cat([bias, of_rest])
        grad_context_weight, grad_token_weight = (
            matrix_gradient(matrix, d_u, inputs)
            for matrix, inputs in zip(ctx.matrices, (c_NC, x_NE), strict=True)
        )
        grad_bias = full_rows(bias, len(ctx.matrices[0]))
        need_c, need_x = ctx.needs_input_grad[:2]
        if need_c and need_x and len(d_u) == 1:
            of_c, of_x = at_once(
                partial(product_backward, d_u, w_c[:rows]),
                partial(product_backward, d_u, w_x[:rows]),
            )
            d_c, d_x = d_c.add_(of_c), of_x if d_x is None else d_x.add_(of_x)
        else:
            if need_x:
                d_x = d_u @ w_x[:rows] if d_x is None else d_x.addmm_(d_u, w_x)
            if need_c:
                d_c.addmm_(d_u, w_c[:rows])
        return (
            d_c if need_c else None,
            d_x if need_x else None,
            grad_context_weight,
            grad_token_weight,
            grad_bias,
            grad_C,
            shift_C,
            grad_E,
            shift_E,
            None,
            None,
        )


def matrix_gradient(matrix: Tensor, d_u: Tensor, inputs: Tensor) -> Tensor | None:
    """Of a matrix that made d_u's rows of `inputs`; None if it is kept in another form.

    `one_row` keeps two vectors, `narrow` keeps it in bfloat16.
    """
    if len(d_u) == 1 and keep_apart(matrix, d_u[0], inputs[0]):
        return None
    if not matrix.requires_grad:
        return None
    gradient = d_u.T @ inputs
    return None if keep_narrow(matrix, gradient) else full_rows(gradient, len(matrix))


def full_rows(grad: Tensor, rows: int) -> Tensor:
    """`grad` in float32 (or wider), with zeros for the rows that no gradient reached."""
    grad = at_least_float32(grad)
    return (
        grad
        if len(grad) == rows
        else torch.cat([grad, grad.new_zeros(rows - len(grad), *grad.shape[1:])])
    )
