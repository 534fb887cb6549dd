"""What every regularizer promises, whatever its formula.

Shapes: N contexts, D context dimensions.
"""

from typing import Any

import torch
from torch import Tensor

from newllm_core.regularizers.base import Regularizer
from newllm_core.regularizers.probe import probe_batch
from newllm_core.testing.report import Failed, failures, report

CONTEXT_DIM = 17
NUM_CONTEXTS = 63
# Below this, a gradient or difference is rounding.
NOTHING = 1e-9
# Relative; bfloat16 has 8 bits, and intermediate results are expected in float32.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 3e-2}


def check_regularizer(regularizer: type[Regularizer], options: Any = None) -> None:  # noqa: ANN401
    """Hold a regularizer to its contract and to what its class attributes declare.

    Args:
        regularizer: the class.
        options: an instance of its `Options`; the defaults if None.

    Raises:
        ConformanceError: with one line for each check that failed.
    """
    report(regularizer, regularizer_failures(regularizer, options))


def regularizer_failures(
    regularizer: type[Regularizer],
    options: Any = None,  # noqa: ANN401
) -> list[str]:
    """Collect one line for each failed check."""
    case = _Case(regularizer, options)
    checks = {
        "finite scalar": case.finite_scalar,
        "gradient": case.gradient,
        "batch of one": case.batch_of_one,
        "float32": lambda: case.precision(torch.float32),
        "bfloat16": lambda: case.precision(torch.bfloat16),
        "order": case.order,
        "tokens": case.tokens,
        "evaluation": case.evaluation,
        "state": case.state,
        "random numbers": case.random_numbers,
        "inputs": case.inputs,
        "parameters": case.parameters,
        "two calls": case.two_calls,
    }
    return failures(checks, regularizer)


class _Case:
    def __init__(self, regularizer: type[Regularizer], options: Any) -> None:  # noqa: ANN401
        self.type = regularizer
        self.options = options

    def make(self) -> Regularizer:
        return self.type(CONTEXT_DIM, self.options)

    def batch(self, num: int = NUM_CONTEXTS) -> tuple[Tensor, Tensor]:
        contexts_ND, tokens_N = probe_batch(CONTEXT_DIM, num)
        return contexts_ND.double(), tokens_N

    def loss(self, regularizer: Regularizer, contexts_ND: Tensor, tokens_N: Tensor) -> Tensor:
        loss = regularizer(contexts_ND, tokens_N=tokens_N)
        if not isinstance(loss, Tensor):
            raise Failed(f"the loss is {loss!r:.80}; return a tensor without dimensions")
        if loss.ndim:
            raise Failed(f"the loss has shape {list(loss.shape)}; reduce it, e.g. with .mean()")
        if not loss.isfinite():
            raise Failed(f"the loss is {loss.item()} for {len(contexts_ND)} ordinary context(s)")
        return loss

    def pull(self, regularizer: Regularizer, contexts_ND: Tensor, tokens_N: Tensor) -> Tensor:
        """Return the gradient with respect to the contexts; zeros where there is none."""
        contexts_ND = contexts_ND.clone().requires_grad_()
        loss = self.loss(regularizer, contexts_ND, tokens_N)
        found = None
        if loss.requires_grad:
            (found,) = torch.autograd.grad(loss, contexts_ND, allow_unused=True)
        if found is not None and not found.isfinite().all():
            raise Failed(
                f"the gradient of {len(contexts_ND)} ordinary context(s) is not finite; look for "
                "sqrt or division at 0 and add an epsilon inside"
            )
        return torch.zeros_like(contexts_ND) if found is None else found

    def finite_scalar(self) -> None:
        self.loss(self.make(), *self.batch())

    def gradient(self) -> None:
        norm = self.pull(self.make(), *self.batch()).norm().item()
        if self.type.has_gradient and norm <= NOTHING:
            raise Failed(
                f"its norm is {norm:g}, so the loss trains nothing; use the contexts of the batch "
                "without detach(), or declare has_gradient = False"
            )
        if not self.type.has_gradient and norm > NOTHING:
            raise Failed(f"its norm is {norm:g}, but has_gradient = False is declared")

    def batch_of_one(self) -> None:
        self.pull(self.make(), *self.batch(1))

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

    def order(self) -> None:
        contexts_ND, tokens_N = self.batch()
        order_N = torch.randperm(len(tokens_N), generator=torch.Generator().manual_seed(1))
        straight = self.loss(self.make(), contexts_ND, tokens_N)
        shuffled = self.loss(self.make(), contexts_ND[order_N], tokens_N[order_N])
        self._declared("uses_order", "shuffling the contexts", straight, shuffled)

    def tokens(self) -> None:
        contexts_ND, tokens_N = self.batch()
        straight = self.loss(self.make(), contexts_ND, tokens_N)
        other = self.loss(self.make(), contexts_ND, tokens_N + 1)
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

    def evaluation(self) -> None:
        regularizer = self.make()
        contexts_ND, tokens_N = self.batch()
        self.loss(regularizer, contexts_ND, tokens_N)
        before = _copy(regularizer)
        regularizer.eval()
        first = self.loss(regularizer, 2 * contexts_ND, tokens_N)
        second = self.loss(regularizer, 2 * contexts_ND, tokens_N)
        changed = [name for name, value in before.items() if not _same(value, regularizer, name)]
        if changed:
            raise Failed(f"{', '.join(changed)} changed; update statistics only if self.training")
        if not torch.equal(first, second):
            raise Failed("the same contexts gave two losses; freeze what changes them in eval()")

    def state(self) -> None:
        first, second = self.make(), self.make()
        contexts_ND, tokens_N = self.batch()
        for factor in (1.0, 1.5):
            self.loss(first, factor * contexts_ND, tokens_N)
        second.load_state_dict(first.state_dict())
        pair = [self.loss(one, 0.7 * contexts_ND, tokens_N).item() for one in (first, second)]
        if pair[0] != pair[1]:
            raise Failed(
                f"after state_dict() and load_state_dict() the next loss is {pair[1]:g} instead of "
                f"{pair[0]:g}; keep every statistic in a buffer (register_buffer)"
            )

    def random_numbers(self) -> None:
        with torch.random.fork_rng(devices=[]):
            losses = []
            for seed in (0, 1):
                torch.manual_seed(seed)
                before = torch.get_rng_state()
                losses.append(self.loss(self.make(), *self.batch()).item())
                if not torch.equal(before, torch.get_rng_state()):
                    raise Failed(
                        "it draws from torch's global generator, so a run cannot be repeated; use "
                        "a torch.Generator seeded from a buffer"
                    )
        if losses[0] != losses[1]:
            raise Failed(f"two new ones give {losses[0]:g} and {losses[1]:g} for the same contexts")

    def inputs(self) -> None:
        contexts_ND, tokens_N = self.batch()
        before = contexts_ND.clone(), tokens_N.clone()
        self.loss(self.make(), contexts_ND, tokens_N)
        if not (torch.equal(contexts_ND, before[0]) and torch.equal(tokens_N, before[1])):
            raise Failed("the contexts or tokens it was given were changed; work on a copy")

    def parameters(self) -> None:
        names = [name for name, _ in self.make().named_parameters()]
        if names:
            raise Failed(f"no optimizer trains {', '.join(names)}; use register_buffer")

    def two_calls(self) -> None:
        regularizer = self.make()
        contexts_ND, tokens_N = self.batch()
        contexts_ND.requires_grad_()
        losses = [self.loss(regularizer, f * contexts_ND, tokens_N) for f in (1.0, 1.5)]
        total = torch.stack(losses).sum()
        if total.requires_grad:
            total.backward()


def _copy(regularizer: Regularizer) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in regularizer.state_dict().items()}


def _same(value: Tensor, regularizer: Regularizer, name: str) -> bool:
    return torch.equal(value, regularizer.state_dict()[name])
