"""What every regularizer promises, whatever its formula.

Shapes: N contexts, D context dimensions.
"""

import copy
from typing import Any

import torch
from torch import Tensor

from newllm_core.regularizers.base import Regularizer
from newllm_core.regularizers.probe import probe_batch
from newllm_core.runtime.repeatable import seeded
from newllm_core.testing.modules import NOTHING, gradient_of, no_global_numbers, scalar
from newllm_core.testing.report import Failed, checks_of, run_checks

CONTEXT_DIM = 24  # that many widths divide
NUM_CONTEXTS = 63
# Relative; bfloat16 has 8 bits, and intermediate results are expected in float32.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}


def check_regularizer(regularizer: type[Regularizer], options: Any = None) -> None:  # noqa: ANN401
    """Hold a regularizer, with these of its `Options` or the defaults, to its contract.

    Raises:
        ConformanceError: with one line for each way in which checks failed.
    """
    run_checks(regularizer, checks_of(_Case(regularizer, options)))


class _Case:
    def __init__(self, regularizer: type[Regularizer], options: Any) -> None:  # noqa: ANN401
        self.type = regularizer
        self.options = options

    def make(self) -> Regularizer:
        with seeded(0):
            return self.type(CONTEXT_DIM, self.options)

    def batch(self, num: int = NUM_CONTEXTS) -> tuple[Tensor, Tensor]:
        contexts_ND, tokens_N = probe_batch(CONTEXT_DIM, num)
        return contexts_ND.double(), tokens_N

    def loss(self, regularizer: Regularizer, contexts_ND: Tensor, tokens_N: Tensor) -> Tensor:
        loss = regularizer(contexts_ND, tokens_N=tokens_N)
        return scalar(loss, f"{len(contexts_ND)} ordinary context(s)")

    def pull(self, regularizer: Regularizer, contexts_ND: Tensor, tokens_N: Tensor) -> Tensor:
        """Return the gradient with respect to the contexts; zeros where there is none."""
        contexts_ND = contexts_ND.clone().requires_grad_()
        loss = self.loss(regularizer, contexts_ND, tokens_N)
        return gradient_of(
            loss,
            contexts_ND,
            f"the gradient of {len(contexts_ND)} ordinary context(s) is not finite; look for sqrt "
            "or division at 0 and add an epsilon inside",
        )

    def check_finite_scalar(self) -> None:
        self.loss(self.make(), *self.batch())

    def check_gradient(self) -> None:
        norm = self.pull(self.make(), *self.batch()).norm().item()
        if self.type.has_gradient and norm <= NOTHING:
            raise Failed(
                f"its norm is {norm:g}, so the loss trains nothing; use the contexts of the batch "
                "without detach(), or declare has_gradient = False"
            )
        if not self.type.has_gradient and norm > NOTHING:
            raise Failed(f"its norm is {norm:g}, but has_gradient = False is declared")

    def check_batch_of_one(self) -> None:
        self.pull(self.make(), *self.batch(1))

    def check_float32(self) -> None:
        self.precision(torch.float32)

    def check_bfloat16(self) -> None:
        self.precision(torch.bfloat16)

    def precision(self, dtype: torch.dtype) -> None:
        contexts_ND, tokens_N = self.batch()
        rounded_ND = contexts_ND.to(dtype)
        exact = self.loss(self.make(), rounded_ND.double(), tokens_N).item()
        found = self.loss(self.make(), rounded_ND, tokens_N).item()
        self.pull(self.make(), rounded_ND, tokens_N)
        if abs(found - exact) > TOLERANCE[dtype] * abs(exact) + NOTHING:
            raise Failed(
                f"the loss is {found:g}, but {exact:g} for the same contexts in float64; compute "
                "with newllm_core.runtime.precision.at_least_float32(contexts_ND)"
            )

    def check_order(self) -> None:
        contexts_ND, tokens_N = self.batch()
        order_N = torch.randperm(len(tokens_N), generator=torch.Generator().manual_seed(1))
        straight = self.loss(self.make(), contexts_ND, tokens_N)
        shuffled = self.loss(self.make(), contexts_ND[order_N], tokens_N[order_N])
        self._declared("uses_order", "shuffling the contexts", straight, shuffled)

    def check_tokens(self) -> None:
        contexts_ND, tokens_N = self.batch()
        straight = self.loss(self.make(), contexts_ND, tokens_N)
        # Other ids, and other pairs of contexts that share one.
        other = self.loss(self.make(), contexts_ND, (tokens_N + 1) // 2)
        self._declared("uses_tokens", "changing the token ids", straight, other)

    def _declared(self, attribute: str, what: str, first: Tensor, second: Tensor) -> None:
        declared = bool(getattr(self.type, attribute))
        differs = (first - second).abs().item() > 1e-6 * first.abs().item() + NOTHING
        if declared != differs:
            effect = "changes" if differs else "does not change"
            raise Failed(
                f"{what} {effect} the loss ({first.item():g}, then {second.item():g}), but "
                f"{attribute} = {declared} is declared"
            )

    def check_evaluation(self) -> None:
        regularizer = self.make()
        contexts_ND, tokens_N = self.batch()
        self.loss(regularizer, contexts_ND, tokens_N)
        before = copy.deepcopy(regularizer.state_dict())
        regularizer.eval()
        first = self.loss(regularizer, 2 * contexts_ND, tokens_N)
        second = self.loss(regularizer, 2 * contexts_ND, tokens_N)
        after = regularizer.state_dict()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        if changed:
            raise Failed(f"{', '.join(changed)} changed; update statistics only if self.training")
        if not torch.equal(first, second):
            raise Failed("the same contexts gave two losses; freeze what changes them in eval()")

    def check_state(self) -> None:
        first, second = self.make(), self.make()
        contexts_ND, tokens_N = self.batch()
        contexts_ND = contexts_ND.float()  # as in training: an assigned buffer keeps its dtype
        for factor in (1.0, 1.5):
            self.loss(first, factor * contexts_ND, tokens_N)
        second.load_state_dict(first.state_dict())
        pair = [self.loss(one, 0.7 * contexts_ND, tokens_N).item() for one in (first, second)]
        if pair[0] != pair[1]:
            raise Failed(
                f"after state_dict() and load_state_dict() the next loss is {pair[1]:g} instead of "
                f"{pair[0]:g}; keep every statistic in a buffer (register_buffer)"
            )

    def check_random_numbers(self) -> None:
        losses = []
        with torch.random.fork_rng(devices=[]):
            for seed in (0, 1):
                torch.manual_seed(seed)
                with no_global_numbers("it", "use a torch.Generator seeded from a buffer"):
                    losses.append(self.loss(self.make(), *self.batch()).item())
        if losses[0] != losses[1]:
            raise Failed(f"two new ones give {losses[0]:g} and {losses[1]:g} for the same contexts")

    def check_inputs(self) -> None:
        contexts_ND, tokens_N = self.batch()
        before = contexts_ND.clone(), tokens_N.clone()
        self.loss(self.make(), contexts_ND, tokens_N)
        if not (torch.equal(contexts_ND, before[0]) and torch.equal(tokens_N, before[1])):
            raise Failed("the contexts or tokens it was given were changed; work on a copy")

    def check_parameters(self) -> None:
        names = [name for name, _ in self.make().named_parameters()]
        if names:
            raise Failed(f"no optimizer trains {', '.join(names)}; use register_buffer")

    def check_two_calls(self) -> None:
        regularizer = self.make()
        contexts_ND, tokens_N = self.batch()
        contexts_ND.requires_grad_()
        losses = [self.loss(regularizer, f * contexts_ND, tokens_N) for f in (1.0, 1.5)]
        total = losses[0] + losses[1]
        if total.requires_grad:
            total.backward()
