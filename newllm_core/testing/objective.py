"""What every objective promises, whatever its formula.

Shapes: N rows, C context_dim, E embed_dim, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.objectives.base import EMBEDDING_MATRIX, NO_TOKEN, Objective, check_reads
from newllm_core.objectives.probe import given_to
from newllm_core.runtime.repeatable import seeded
from newllm_core.testing.modules import (
    NOTHING,
    check_close,
    check_initialise,
    check_parameter_gradients,
    check_tensors,
    gradient_of,
    moved,
    no_global_numbers,
    scalar,
)
from newllm_core.testing.report import Failed, checks_of, run_checks

CONTEXT_DIM, EMBED_DIM, VOCAB_SIZE, ROWS = 24, 16, 11, 9
Given = dict[str, Tensor]


def check_objective(objective: type[Objective], options: Any = None) -> None:  # noqa: ANN401
    """Hold an objective to its contract, with these of its `Options` or the defaults.

    Raises:
        ConformanceError: with one line for each way in which checks failed.
    """
    checks = checks_of(_Case(objective, options))
    # Where it reads what does not exist nothing can be given to it.
    run_checks(objective, {"reads": checks.pop("reads")})
    run_checks(objective, checks)


class _Case:
    def __init__(self, objective: type[Objective], options: Any) -> None:  # noqa: ANN401
        self.type = objective
        self.options = options

    def bare(self) -> Objective:
        with seeded(0):
            return self.type(CONTEXT_DIM, EMBED_DIM, VOCAB_SIZE, self.options)

    def make(self, seed: int = 0) -> Objective:
        objective = self.bare()
        objective.initialise(torch.Generator().manual_seed(seed))
        return objective.double()

    def given(self, rows: int = ROWS, *, known: int | None = None) -> Given:
        """Make what `loss` is given; of other tokens only the first `known` exist."""
        # As at the edge of a text: not every row has a token so many places away.
        known = rows - rows // 4 if known is None else known
        found = given_to(self.bare(), rows, known)
        return {n: v.double() if v.is_floating_point() else v for n, v in found.items()}

    def loss(self, objective: Objective, given: Given, what: str = "ordinary input") -> Tensor:
        return scalar(objective.loss(**given), what)

    def pull(self, given: Given, what: str = "ordinary input") -> Tensor:
        """Differentiate with respect to the contexts; zeros where there is no gradient."""
        final_NC = given["final_NC"].clone().requires_grad_()
        loss = self.loss(self.make(), {**given, "final_NC": final_NC}, what)
        return gradient_of(
            loss,
            final_NC,
            f"the gradient of final_NC is not finite for {what}; look for sqrt, log or division "
            "at 0",
        )

    def compare(self, found: Tensor, advice: str, tolerance: float = NOTHING) -> None:
        """Compare with the loss of a new objective in float64."""
        check_close(found, self.loss(self.make(), self.given()), tolerance, advice)

    def check_reads(self) -> None:
        try:
            check_reads(self.bare())
        except PluginError as error:
            raise Failed(str(error)) from error

    def check_finite_scalar(self) -> None:
        self.loss(self.make(), self.given())

    def check_batch_of_one(self) -> None:
        self.pull(self.given(1))

    def check_no_token(self) -> None:
        for rows, known in ((ROWS, 1), (ROWS, 0), (1, 0)):
            what = f"{rows} row(s), of which {known} have another token and the rest NO_TOKEN"
            try:
                self.pull(self.given(rows, known=known), what)
            except Failed as failure:
                raise Failed(f"{failure}; divide by max(1, the number of tokens)") from failure
            except (IndexError, RuntimeError) as error:
                raise Failed(
                    f"{error} for {what}; leave out rows of NO_TOKEN ({NO_TOKEN}), as "
                    "cross_entropy does"
                ) from error

    def check_mean(self) -> None:
        given = self.given()
        once = self.loss(self.make(), given).item()
        double = {k: v if k == EMBEDDING_MATRIX else torch.cat([v, v]) for k, v in given.items()}
        twice = self.loss(self.make(), double).item()
        if abs(once) > NOTHING and abs(twice / once - 2) < NOTHING:
            raise Failed("twice the rows have twice the loss; return their mean, not their sum")

    def narrow_loss(self) -> Tensor:
        """Compute the loss of float32 input."""
        narrow = {k: v.float() if v.is_floating_point() else v for k, v in self.given().items()}
        return self.loss(self.make().float(), narrow)

    def check_float32(self) -> None:
        self.compare(self.narrow_loss(), "float64 says otherwise", tolerance=1e-4)

    def check_bfloat16(self) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = self.narrow_loss()
        advice = (
            "under torch.autocast products come out as bfloat16: compare and sum with "
            "newllm_core.runtime.precision.at_least_float32"
        )
        self.compare(found, advice, tolerance=3e-2)

    def check_gradient(self) -> None:
        if self.pull(self.given()).norm() <= NOTHING:
            raise Failed(
                "that of final_NC is 0, so the recurrence learns nothing; do not detach it"
            )
        objective = moved(self.make())
        check_parameter_gradients(objective, self.loss(objective, self.given()))

    def check_repetition(self) -> None:
        objective, given = self.make(), self.given()
        with no_global_numbers("loss"):
            self.loss(objective, given)
        found = self.loss(objective, self.given())
        self.compare(found, "the same input came before: keep nothing of a call")

    def check_tensors(self) -> None:
        check_tensors(self.make(), lambda made: self.loss(made, self.given()), "loss")

    def check_inputs(self) -> None:
        given, before = self.given(), self.given()
        self.loss(self.make(), given)
        changed = [name for name, value in given.items() if not torch.equal(value, before[name])]
        if changed:
            raise Failed(f"{', '.join(changed)} was changed; work on a copy")

    def check_initialise(self) -> None:
        check_initialise(self.bare, lambda made, generator: made.initialise(generator))

    def check_state(self) -> None:
        second = self.make(1)
        second.load_state_dict(self.make().state_dict())
        advice = "after load_state_dict(state_dict()); keep tensors in parameters or buffers"
        self.compare(self.loss(second, self.given()), advice)
