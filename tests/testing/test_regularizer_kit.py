"""The kit passes what is right, and says of each wrong what is wrong."""

import pytest
import torch

from newllm_core.regularizers.base import Regularizer
from newllm_core.testing import ConformanceError, check_regularizer


class Square(Regularizer):
    def loss(self, contexts_ND, *, tokens_N):
        return contexts_ND.float().square().mean()


class NaN(Square):
    def loss(self, contexts_ND, *, tokens_N):
        return super().loss(contexts_ND, tokens_N=tokens_N) * float("nan")


class Number(Square):
    def loss(self, contexts_ND, *, tokens_N):
        return 0.5


class Vector(Square):
    def loss(self, contexts_ND, *, tokens_N):
        return contexts_ND.mean(0)


class Detached(Square):
    def loss(self, contexts_ND, *, tokens_N):
        return super().loss(contexts_ND.detach(), tokens_N=tokens_N)


class DeclaredFlat(Square):
    has_gradient = False


class Unbiased(Square):
    """Variance over N - 1, which is not a number for N = 1."""

    def loss(self, contexts_ND, *, tokens_N):
        return contexts_ND.double().var(0).mean()


class SteepAtZero(Square):
    def loss(self, contexts_ND, *, tokens_N):
        return contexts_ND.double().var(0, correction=0).sqrt().mean()


class Rough(Square):
    """Between 256 and 512, numbers of bfloat16 are 2 apart."""

    def loss(self, contexts_ND, *, tokens_N):
        return (contexts_ND + 300 - 300).square().mean()


class InOrder(Square):
    def loss(self, contexts_ND, *, tokens_N):
        return contexts_ND.double().diff(dim=0).square().sum()


class DeclaredInOrder(Square):
    uses_order = True


class ByToken(Square):
    def loss(self, contexts_ND, *, tokens_N):
        return (contexts_ND.double().square().mean(1) * (1 + tokens_N)).mean()


class DeclaredByToken(Square):
    uses_tokens = True


class Statistic(Square):
    """A running mean square: how it ought to be."""

    def __init__(self, context_dim, options=None):
        super().__init__(context_dim, options)
        self.register_buffer("mean_D", torch.ones(context_dim))

    def loss(self, contexts_ND, *, tokens_N):
        mean_D = 0.9 * self.mean_D + 0.1 * contexts_ND.double().square().mean(0)
        if self.training:
            self.keep(mean_D.detach())
        return mean_D.square().mean()

    def keep(self, mean_D):
        self.mean_D.copy_(mean_D)


class Assigned(Statistic):
    """A statistic that is a new tensor every time, of the contexts' dtype."""

    def loss(self, contexts_ND, *, tokens_N):
        mean_D = 0.9 * self.mean_D + 0.1 * contexts_ND.square().mean(0)
        if self.training:
            self.mean_D = mean_D.detach()
        return mean_D.square().mean()


class Projected(Square):
    """Fixed directions, drawn where it is made."""

    def __init__(self, context_dim, options=None):
        super().__init__(context_dim, options)
        self.register_buffer("turn_DD", torch.randn(context_dim, context_dim))

    def loss(self, contexts_ND, *, tokens_N):
        return (contexts_ND.double() @ self.turn_DD.double()).square().mean()


class NeverFrozen(Statistic):
    training = True

    def train(self, mode=True):
        return self


class Unregistered(Statistic):
    def __init__(self, context_dim, options=None):
        super().__init__(context_dim, options)
        del self.mean_D
        self.mean_D = torch.ones(context_dim)


class InPlace(Statistic):
    """The graph of the first call needs the buffer that the second changes."""

    def loss(self, contexts_ND, *, tokens_N):
        loss = (contexts_ND.float().square() * self.mean_D).mean()
        if self.training:
            self.mean_D.mul_(0.5)
        return loss


class Random(Square):
    def loss(self, contexts_ND, *, tokens_N):
        return super().loss(contexts_ND, tokens_N=tokens_N) * torch.rand(())


class Greedy(Square):
    def loss(self, contexts_ND, *, tokens_N):
        with torch.no_grad():
            contexts_ND.clamp_(max=1)
        return super().loss(contexts_ND, tokens_N=tokens_N)


class Learner(Square):
    def __init__(self, context_dim, options=None):
        super().__init__(context_dim, options)
        self.scale_D = torch.nn.Parameter(torch.ones(context_dim))


class Unmakeable(Square):
    def __init__(self, context_dim):
        super().__init__(context_dim)


class Apart(Square):
    """What pairs of different tokens have in common, in four groups of dimensions."""

    uses_tokens = True

    def loss(self, contexts_ND, *, tokens_N):
        other_NN = tokens_N[:, None] != tokens_N
        groups_NGD = contexts_ND.double().unflatten(1, (4, -1))
        alike_NN = torch.einsum("ngd,mgd->nm", groups_NGD, groups_NGD)
        return (alike_NN * other_NN).square().mean()


class DeclaredApart(Apart):
    uses_tokens = False


WRONG = [
    (DeclaredApart, "tokens: changing the token ids changes the loss"),
    (NaN, "finite scalar: the loss is nan for 63 ordinary context(s)"),
    (Number, "finite scalar: the loss is 0.5; return a tensor without dimensions"),
    (Vector, "finite scalar: the loss has shape [24]; reduce it"),
    (Detached, "gradient: its norm is 0, so the loss trains nothing; use the contexts"),
    (DeclaredFlat, "but has_gradient = False is declared"),
    (Unbiased, "batch of one: the loss is nan for 1 ordinary context(s)"),
    (SteepAtZero, "batch of one: the gradient of 1 ordinary context(s) is not finite"),
    (Rough, "bfloat16: the loss is "),
    (InOrder, "order: shuffling the contexts changes the loss"),
    (DeclaredInOrder, "order: shuffling the contexts does not change the loss"),
    (ByToken, "tokens: changing the token ids changes the loss"),
    (DeclaredByToken, "tokens: changing the token ids does not change the loss"),
    (NeverFrozen, "evaluation: mean_D changed; update statistics only if self.training"),
    (Unregistered, "state: after state_dict() and load_state_dict() the next loss is"),
    (InPlace, "two calls: it raised RuntimeError: one of the variables needed for gradient"),
    (Random, "random numbers: it draws from torch's global generator"),
    (Greedy, "inputs: the contexts or tokens it was given were changed"),
    (Learner, "parameters: no optimizer trains scale_D; use register_buffer"),
    (Unmakeable, "finite scalar: it raised TypeError: "),
]


@pytest.mark.parametrize("right", [Square, Statistic, Assigned, Projected, Apart])
def test_what_is_right_passes(right):
    check_regularizer(right)


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize(("wrong", "line"), WRONG, ids=lambda value: getattr(value, "__name__", ""))
def test_what_is_wrong_is_explained(wrong, line):
    with pytest.raises(ConformanceError) as caught:
        check_regularizer(wrong)
    message = str(caught.value)
    assert message.startswith(f"{__name__}:{wrong.__name__} fails ")
    assert any(part.strip().startswith(line) or line in part for part in message.splitlines())
