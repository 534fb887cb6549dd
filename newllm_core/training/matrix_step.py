"""Adam's step for one matrix whose gradient is an outer product.

Shapes: H outputs, K inputs of a matrix.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from newllm_core import native
from newllm_core.model.one_row import OuterProduct
from newllm_core.native.one_row import adam_outer


class MatrixStep:
    """A step that is decided and not made yet (see `one_row.put_off`).

    Rows without a gradient and without moments do not move: they are left alone.

    Args:
        gradient: what to step down.
        scale: of the gradient.
        state: of the optimizer for this matrix.
        group: of the optimizer: rate, betas, eps.
    """

    def __init__(
        self,
        gradient: OuterProduct,
        scale: Tensor | float,
        state: dict[str, Tensor],
        group: Mapping[str, Any],
    ) -> None:
        rows = len(gradient.left)
        self.matrix_HK = gradient.matrix.detach()[:rows]
        self._moments = (state["exp_avg"][:rows], state["exp_avg_sq"][:rows])
        self._gradient = (gradient.left * scale, gradient.right)
        self._count = state["step"]
        self._count += 1
        self._settings = {name: group[name] for name in ("lr", "betas", "eps")}

    @property
    def can_multiply(self) -> bool:
        """Whether `make` can return a product."""
        return native.suits(self.matrix_HK, *self._moments, *self._gradient)

    def make(self) -> None:
        """Change matrix and moments."""
        if self.can_multiply:
            self.make_and_multiply(self._gradient[1])
            return
        (beta1, beta2), rate, eps = (self._settings[name] for name in ("betas", "lr", "eps"))
        # What `torch.optim.Adam(fused=True)` calls, without a tenth of a millisecond of checks.
        torch._fused_adam_(
            [self.matrix_HK],
            [torch.outer(*self._gradient)],
            [self._moments[0]],
            [self._moments[1]],
            [],
            [self._count],
            amsgrad=False,
            lr=rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=eps,
            maximize=False,
        )

    def make_and_multiply(self, vector_K: Tensor) -> Tensor:
        """Change them; returns the product of the new matrix and `vector_K` [H]."""
        return adam_outer(
            self.matrix_HK,
            *self._moments,
            *self._gradient,
            vector_K,
            step=int(self._count),
            rate=self._settings["lr"],
            betas=self._settings["betas"],
            eps=self._settings["eps"],
        )
