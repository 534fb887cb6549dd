"""From a loss to changed weights, in both phases, without waiting for the device."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from newllm_core.parallel import collectives
from newllm_core.parallel.collectives import by_sharding


class OptimizerStep:
    """Makes gradients, averages them over processes, clips them and steps.

    A processor looks at norm and losses first: it knows them already, and most steps need no
    clipping. On CUDA the fused optimizer divides gradients and refuses what is not finite (what
    `torch.amp.GradScaler` uses as well), so that nothing waits for the device. On MPS it ignores
    both, so that every step looks.

    The optimizer is made with `fused=True`; a `clip` of 0 sets gradients no limit.

    Attributes:
        looks: whether norm and losses are looked at before a step.
        failed: 1 once a loss or gradient was not finite, a scalar on the device. From then on
            nothing changes any more, so that whoever looks later finds the weights from before.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float) -> None:
        assert all(group["fused"] for group in optimizer.param_groups)
        self.optimizer = optimizer
        self.clip = clip
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.failed = torch.zeros((), device=self.parameters[0].device)
        self.looks = self.failed.device.type in ("cpu", "mps")

    def backward(self, loss: Tensor, losses: Sequence[Tensor] = ()) -> Tensor:
        """Make the gradients of `loss`; returns their norm, a scalar.

        `losses` are replaced by their means over processes, in the same message.
        """
        self.optimizer.zero_grad(set_to_none=True)
        # It has no gradient where this process has no row of the batch.
        if loss.requires_grad:
            loss.backward()
        collectives.average_gradients(self.parameters, losses)
        return collectives.gradient_norm(self.parameters)

    def apply(self, norm: Tensor, rate: float, losses: Iterable[Tensor] = ()) -> None:
        """Change the weights by the gradients, whose norm is `norm`, at learning rate `rate`.

        Nothing changes if the norm or one of `losses` is not finite, or was in an earlier step.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        if not self.looks:
            finite = torch.stack([norm, *losses]).isfinite().all()
            self.failed = torch.where(finite, self.failed, 1.0)
            vars(self.optimizer).update(grad_scale=self._scale(norm), found_inf=self.failed)
        elif self.failed or not all(math.isfinite(value.item()) for value in (norm, *losses)):
            self.failed.fill_(1)
            return
        elif 0 < self.clip < norm:
            self._clip(norm)
        self.optimizer.step()

    def _scale(self, norm: Tensor) -> Tensor | None:
        """Return what gradients are to be divided by, if by anything."""
        if self.clip > 0 and norm.dtype == torch.float32:
            return ((norm + 1e-6) / self.clip).clamp(min=1)
        if self.clip > 0:  # the fused optimizer knows no scale in float64
            self._clip(norm)
        return None

    def _clip(self, norm: Tensor) -> None:
        for alike in by_sharding(self.parameters):
            nn.utils.clip_grads_with_norm_(alike, self.clip, norm)
