"""Every threshold of a verdict, in one place, each with the reason for it.

What the gate of Phase 2 refuses by default is degenerate here: those numbers are the gate's own.
Standard library only, so that the command line can show them without loading torch.
"""

from dataclasses import dataclass

from newllm_core.config import GateConfig

HEALTHY, WEAK, DEGENERATE = "healthy", "weak", "degenerate"

# Weights that moved no further than this have not been trained (any step of an optimizer does).
LEAST_WEIGHT_CHANGE = 1e-9

_GATE = GateConfig()


@dataclass(frozen=True)
class Threshold:
    """How one section of the analysis is judged.

    Attributes:
        measure: what the value is, as tables call it.
        high_is_good: whether healthy values lie above the thresholds.
        healthy: the value from which a section is healthy.
        degenerate: the value beyond which it is degenerate; between the two it is weak.
        why: where the numbers come from.
        messages: a few words for each status.
    """

    measure: str
    high_is_good: bool
    healthy: float
    degenerate: float
    why: str
    messages: dict[str, str]

    def judge(self, value: float) -> tuple[str, float]:
        """Return status of `value`, and the threshold that it was held against."""
        sign = 1 if self.high_is_good else -1
        if sign * value >= sign * self.healthy:
            return HEALTHY, self.healthy
        if sign * value >= sign * self.degenerate:
            return WEAK, self.healthy
        return DEGENERATE, self.degenerate


def _words(healthy: str, weak: str, degenerate: str) -> dict[str, str]:
    return {HEALTHY: healthy, WEAK: weak, DEGENERATE: degenerate}


THRESHOLDS: dict[str, Threshold] = {
    "convergence": Threshold(
        measure="converged",
        high_is_good=True,
        healthy=0.5,
        degenerate=0.1,
        why="Contexts that start elsewhere need some tokens to meet, which bounds the share below "
        "1; a chaotic recurrence never meets and stays near 0.",
        messages=_words("contexts settle", "contexts settle slowly", "contexts do not settle"),
    ),
    "global_attractor": Threshold(
        measure="pair cosine",
        high_is_good=False,
        healthy=0.5,
        degenerate=_GATE.max_mean_cosine,
        why="The mean over pairs of contexts. Diverse ones are near 0; near 1 they are one point, "
        "whatever was read.",
        messages=_words(
            "contexts differ", "contexts share a direction", "all contexts are nearly equal"
        ),
    ),
    "zero_solution": Threshold(
        measure="norm/sqrt(D)",
        high_is_good=True,
        healthy=0.2,
        degenerate=_GATE.min_norm,
        why="The mean norm. LayerNorm gives 1, a bounded gate a few tenths; near 0 nothing is "
        "remembered.",
        messages=_words("norms are fine", "contexts are short", "contexts are nearly zero"),
    ),
    "distribution": Threshold(
        measure="live dims",
        high_is_good=True,
        healthy=0.9,
        degenerate=0.5,
        why="A dimension lives if its variance is at least 1 % of the mean square of all entries; "
        "a dead one says the same in every context.",
        messages=_words("dimensions vary", "some dimensions are dead", "most dimensions are dead"),
    ),
    "information_content": Threshold(
        measure="ER/ceiling",
        high_is_good=True,
        healthy=0.5,
        degenerate=_GATE.min_train_rank,
        why="Untrained blocks reach 0.8 to 0.9 and healthy ones more; collapsed runs stay below "
        "0.2. Over the ceiling of as many Gaussian samples, so that short texts are judged alike.",
        messages=_words("many dimensions in use", "few dimensions in use", "rank has collapsed"),
    ),
    "identity_mapping": Threshold(
        measure="step cosine",
        high_is_good=False,
        healthy=0.9,
        degenerate=0.95,
        why="The cosine of c[t-1] and c[t]. Healthy contexts are at 0.4 to 0.5; a cosine of 0.9 is "
        "a memory of about ten tokens, above 0.95 an update hardly changes anything.",
        messages=_words("contexts move", "contexts move slowly", "contexts copy the one before"),
    ),
    "token_dependency": Threshold(
        measure="token cosine",
        high_is_good=False,
        healthy=0.9,
        degenerate=0.98,
        why="The cosine of what two different tokens make of one context: 1 if tokens are ignored; "
        "at 0.98 a token decides 2 % of the energy.",
        messages=_words("tokens matter", "tokens matter little", "tokens are ignored"),
    ),
    "dynamics": Threshold(
        measure="exponent λ",
        high_is_good=False,
        healthy=-0.01,
        degenerate=0.05,
        why="Above 0 neighbouring contexts part: no fixed point. At -0.01 they need 100 tokens to "
        "draw near by 1/e, longer than most passages; at 0.05 they part by e in 20.",
        messages=_words(
            "starts are forgotten", "starts are hardly forgotten", "chaotic: starts never meet"
        ),
    ),
    "memory": Threshold(
        measure="tokens kept",
        high_is_good=True,
        healthy=1.25,
        degenerate=0.5,
        why="Tokens that linear probes read back, summed over lags. The token just read is worth "
        "up to 1: below 1.25 hardly anything before it is there, below 0.5 not even that.",
        messages=_words(
            "earlier tokens can be read", "little but the last token", "tokens cannot be read back"
        ),
    ),
}
