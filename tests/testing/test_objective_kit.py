"""The kit for objectives passes what is right, and says of each wrong what is wrong."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from newllm_core.objectives.base import NO_TOKEN, Objective
from newllm_core.plugins.registry import OBJECTIVES
from newllm_core.settings import make_section
from newllm_core.testing import ConformanceError, check_objective

OWN = [name for name, (first, *_) in OBJECTIVES.plugins().items() if first.is_own]
VARIANTS = [
    *((name, {}) for name in OWN),
    ("reconstruction", {"decoder": "linear"}),
    ("reconstruction", {"context_weight": 0.0}),
    ("cvfp", {"teacher": "same-weights"}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_built_ins_conform(name, options):
    found = OBJECTIVES.load(name)
    check_objective(found, make_section(found.Options, "objective", options))


class Recall(Objective):
    """How it ought to be."""

    reads = ("tokens_at:-1", "tokens_at:+2")

    def __init__(self, *given):
        super().__init__(*given)
        self.head = nn.Linear(self.context_dim, self.vocab_size)

    def errors(self, final_NC, target_N):
        logits_NV = self.head(final_NC)
        total = F.cross_entropy(logits_NV, target_N, ignore_index=NO_TOKEN, reduction="sum")
        return total / (target_N != NO_TOKEN).sum().clamp(min=1)

    def loss(self, *, final_NC, incoming_NC, embedded_NE, **read):
        return self.errors(final_NC, read["tokens_at:-1"]) + self.errors(
            final_NC, read["tokens_at:+2"]
        )


class Similar(Objective):
    """Without parameters: the context must be near a mean of embeddings."""

    reads = frozenset({"embedding_matrix", "previous"})

    def loss(self, *, final_NC, incoming_NC, embedded_NE, **read):
        mean = read["embedding_matrix"].mean()
        return F.mse_loss(final_NC, mean + read["previous"])


class OnlyRead(Recall):
    reads = ("token_at:-1",)


class TooFar(Recall):
    reads = ("tokens_at:-9999",)


class Number(Recall):
    def errors(self, final_NC, target_N):
        return 0.5


class Vector(Recall):
    def loss(self, **given):
        return given["final_NC"].mean(0)


class Divided(Recall):
    def loss(self, **given):
        return super().loss(**given) / 0


class Normalised(Recall):
    """The deviation of a single row is not a number."""

    def loss(self, **given):
        return super().loss(**given) + given["final_NC"].std(0).mean()


class SteepAtOne(Recall):
    def loss(self, **given):
        return super().loss(**given) + given["final_NC"].var(0, correction=0).sqrt().mean()


class MeanOfNone(Recall):
    def errors(self, final_NC, target_N):
        return F.cross_entropy(self.head(final_NC), target_N)


class EveryToken(Recall):
    def errors(self, final_NC, target_N):
        return F.embedding(target_N, self.head.weight).sub(final_NC).square().mean()


class Summed(Similar):
    def loss(self, *, final_NC, incoming_NC, embedded_NE, **read):
        return final_NC.square().sum()


class Rough(Similar):
    def loss(self, *, final_NC, incoming_NC, embedded_NE, **read):
        return (final_NC + 1e5 - 1e5).square().mean()


class Narrow(Recall):
    def errors(self, final_NC, target_N):
        return (self.head(final_NC) + 400 - 400).square().mean()


class Detached(Recall):
    def errors(self, final_NC, target_N):
        return super().errors(final_NC.detach(), target_N)


class Spare(Recall):
    def __init__(self, *given):
        super().__init__(*given)
        self.spare_C = nn.Parameter(torch.zeros(self.context_dim))


class Counting(Recall):
    calls = 0

    def errors(self, final_NC, target_N):
        self.calls += 1
        return self.calls * super().errors(final_NC, target_N)


class Average(Recall):
    """Statistics, which no resumed run would have."""

    def __init__(self, context_dim, embed_dim, vocab_size, options=None):
        super().__init__(context_dim, embed_dim, vocab_size, options)
        self.register_buffer("mean_C", torch.zeros(context_dim))

    def errors(self, final_NC, target_N):
        self.mean_C = 0.9 * self.mean_C + 0.1 * final_NC.detach().mean(0)
        return super().errors(final_NC - self.mean_C, target_N)


class Projected(Recall):
    """Fixed numbers, drawn where it is made."""

    def __init__(self, context_dim, embed_dim, vocab_size, options=None):
        super().__init__(context_dim, embed_dim, vocab_size, options)
        self.register_buffer("turn_CC", torch.randn(context_dim, context_dim))

    def errors(self, final_NC, target_N):
        return super().errors(final_NC @ self.turn_CC, target_N)


class Dropping(Recall):
    def errors(self, final_NC, target_N):
        return super().errors(F.dropout(final_NC), target_N)


class Overwriting(Recall):
    def loss(self, **given):
        with torch.no_grad():
            given["tokens_at:-1"].clamp_(min=0)
            given["incoming_NC"].mul_(2)
        return super().loss(**given)


class Uninitialised(Recall):
    def initialise(self, generator):
        nn.init.normal_(self.head.weight, generator=generator)


class GlobalNumbers(Recall):
    def initialise(self, generator):
        super().initialise(generator)
        nn.init.normal_(self.head.weight)


class OwnNumbers(Recall):
    def initialise(self, generator):
        super().initialise(torch.Generator().manual_seed(7))


class Unsaved(Recall):
    def initialise(self, generator):
        super().initialise(generator)
        self.scale = torch.rand((), generator=generator).item()

    def errors(self, final_NC, target_N):
        return super().errors(self.scale * final_NC, target_N)


WRONG = [
    (OnlyRead, "reads: reads 'token_at:-1': choose from previous, second_reading, embedding_mat"),
    (TooFar, "reads: reads 'tokens_at:-9999': "),
    (Number, "finite scalar: the loss is 1.0; return a tensor without dimensions"),
    (Vector, "finite scalar: the loss has shape [24]; reduce it"),
    (Divided, "finite scalar: the loss is inf for ordinary input"),
    (Normalised, "batch of one: the loss is nan for ordinary input"),
    (SteepAtOne, "batch of one: the gradient of final_NC is not finite"),
    (MeanOfNone, "no token: the loss is nan for 9 row(s), of which 0 have another token"),
    (EveryToken, "no token: index out of range in self for 9 row(s), of which 1 have another"),
    (Summed, "mean: twice the rows have twice the loss; return their mean"),
    (Rough, "float32: a result is off by"),
    (Narrow, "bfloat16: a result is off by"),
    (Detached, "gradient: that of final_NC is 0, so the recurrence learns nothing"),
    (Spare, "gradient: spare_C gets none; use it without detach()"),
    (Counting, "repetition: a result is off by"),
    (Average, "tensors: loss changes mean_C; keep nothing between two calls"),
    (Dropping, "repetition: loss draws from torch's global generator"),
    (Overwriting, "inputs: incoming_NC, tokens_at:-1 was changed; work on a copy"),
    (Uninitialised, "initialise: it leaves head.bias as it was; set every parameter"),
    (GlobalNumbers, "initialise: initialise draws from torch's global generator"),
    (OwnNumbers, "initialise: head.weight is the same for another seed"),
    (Unsaved, "state: a result is off by"),
]


class Masked(Recall):
    def __init__(self, *given):
        super().__init__(*given)
        self.register_buffer("mask", torch.full((2,), float("inf")))


def test_a_buffer_that_no_checkpoint_may_hold_is_found():
    with pytest.raises(ConformanceError, match="tensors: it: mask holds values that are not fin"):
        check_objective(Masked)


@pytest.mark.parametrize("right", [Recall, Similar, Projected])
def test_what_is_right_passes(right):
    check_objective(right)


@pytest.mark.filterwarnings("ignore:std")
@pytest.mark.parametrize(("wrong", "line"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_explained(wrong, line):
    with pytest.raises(ConformanceError) as caught:
        check_objective(wrong)
    message = str(caught.value)
    assert message.startswith(f"{__name__}:{wrong.__name__} fails ")
    assert any(part.strip().startswith(line) for part in message.splitlines()), message
