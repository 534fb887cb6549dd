"""Cells that are right, and some with one mistake each and what the kit says of it."""

from dataclasses import dataclass

import torch
from torch import nn

from newllm_core.model.cells.base import Cell


class Leaky(Cell):
    """How it ought to be."""

    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.map = nn.Linear(context_dim + embed_dim, context_dim)
        self.norm = nn.LayerNorm(embed_dim)

    def say(self, context, token):
        return torch.tanh(self.map(torch.cat([context, token], dim=-1)))

    def forward(self, *, context, token):
        new_token = token if self.is_last else self.norm(token)
        return context + 0.3 * (self.say(context, token) - context), new_token


@dataclass(frozen=True)
class RateOptions:
    rate: float = 0.3


class Constants(Cell):
    """One without random numbers: every seed gives the same."""

    Options = RateOptions

    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.scale_C = nn.Parameter(torch.empty(context_dim))

    def initialise(self, std, generator):
        nn.init.constant_(self.scale_C, self.options.rate)

    def forward(self, *, context, token):
        return context * self.scale_C + token.mean(-1, keepdim=True), token


class OnMeta(Leaky):
    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.largest = self.map.weight.max().item()


class Alone(Leaky):
    def forward(self, *, context, token):
        return super().forward(context=context, token=token)[0]


class Widened(Leaky):
    def forward(self, *, context, token):
        return torch.cat([context, token], dim=-1), token


class Exploding(Leaky):
    def forward(self, *, context, token):
        return context / 0, token


class Float32(Leaky):
    def forward(self, *, context, token):
        context, token = super().forward(context=context, token=token)
        return context.float(), token


class Single(Leaky):
    """The variance of a single row is not a number."""

    def forward(self, *, context, token):
        new, token = super().forward(context=context, token=token)
        return new + 0 * context.std(0), token


class TwoDimensions(Leaky):
    def say(self, context, token):
        return torch.tanh(self.map(torch.cat([context, token], dim=1)))


class Mixing(Leaky):
    def say(self, context, token):
        return super().say(context, token) + context.mean(0)


class Rough(Leaky):
    def say(self, context, token):
        return super().say(context, token + 1e6 - 1e6)


class Lerp(Leaky):
    def forward(self, *, context, token):
        return torch.lerp(context, self.say(context, token), 0.3), token


class Counting(Leaky):
    calls = 0

    def say(self, context, token):
        self.calls += 1
        return self.calls * super().say(context, token)


class Dropping(Leaky):
    def say(self, context, token):
        return nn.functional.dropout(super().say(context, token))


class InPlace(Leaky):
    def forward(self, *, context, token):
        with torch.no_grad():
            context.mul_(0.5)
        return super().forward(context=context, token=token)


class Uninitialised(Leaky):
    def initialise(self, std, generator):
        nn.init.normal_(self.map.weight, 0, std, generator=generator)


class GlobalNumbers(Leaky):
    def initialise(self, std, generator):
        super().initialise(std, generator)
        nn.init.normal_(self.map.weight, 0, std)


class OwnNumbers(Leaky):
    def initialise(self, std, generator):
        super().initialise(std, torch.Generator().manual_seed(7))


class NumbersOfTime(Leaky):
    def initialise(self, std, generator):
        own = torch.Generator()
        own.seed()
        super().initialise(std, own)


class Spectral(Leaky):
    """A parametrization that makes a step of its own in every call."""

    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        nn.utils.parametrizations.spectral_norm(self.map)


class Late(Leaky):
    def say(self, context, token):
        if not hasattr(self, "late"):
            self.register_buffer("late", torch.ones_like(context[:1]))
        return super().say(context, token)


class Plain(Leaky):
    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.steps_C = torch.linspace(0, 1, context_dim)


class Infinite(Leaky):
    def initialise(self, std, generator):
        super().initialise(std, generator)
        self.map.bias.data.fill_(float("inf"))


class InTraining(Leaky):
    def say(self, context, token):
        return super().say(context, token) * (1 if self.training else 0.9)


SHARED = nn.Parameter(torch.zeros(6))


class Sharing(Leaky):
    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.map.bias = SHARED


class Reservoir(Leaky):
    """Fixed matrices: a buffer, and a parameter without a gradient."""

    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.fixed = nn.Parameter(torch.empty(context_dim, context_dim), requires_grad=False)
        self.register_buffer("scale", torch.rand(context_dim))

    def say(self, context, token):
        return super().say(self.scale * (context @ self.fixed), token)


class Frozen(Leaky):
    """A reservoir: no parameter needs a gradient."""

    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.requires_grad_(False)


class Scalar(Leaky):
    """One parameter without dimensions."""

    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.gain = nn.Parameter(torch.zeros(()))

    def say(self, context, token):
        return (1 + self.gain) * super().say(context, token)


class DetachedContext(Leaky):
    def forward(self, *, context, token):
        return super().forward(context=context.detach(), token=token)


class Deaf(Leaky):
    def say(self, context, token):
        return super().say(context, torch.zeros_like(token))


class Spare(Leaky):
    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.spare_C = nn.Parameter(torch.zeros(context_dim))


class Steep(Leaky):
    def forward(self, *, context, token):
        new, token = super().forward(context=context, token=token)
        return new + (0 * context).square().sum(-1, keepdim=True).sqrt(), token


class TanhOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        ctx.save_for_backward(result := values.tanh())
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        (result,) = ctx.saved_tensors
        return gradient * (1 - result.square())


class Once(Leaky):
    def say(self, context, token):
        return TanhOnce.apply(self.map(torch.cat([context, token], dim=-1)))


class DeclaredOnce(Once):
    twice_differentiable = False


class OtherAtTheEnd(Leaky):
    def say(self, context, token):
        return super().say(context, token) * (2 if self.is_last else 1)


class Unsaved(Leaky):
    def initialise(self, std, generator):
        super().initialise(std, generator)
        self.shift = torch.randn(self.context_dim, generator=generator)

    def say(self, context, token):
        return super().say(context, token) + self.shift.to(context.dtype)


class Keeping(Leaky):
    def say(self, context, token):
        self.said = super().say(context, token)
        return self.said


WRONG = [
    (OnMeta, "meta device: making one on torch's meta device, where parameters are counted"),
    (Alone, "shapes: forward returned a Tensor; return (context, token)"),
    (Widened, "shapes: the context went in with shape [12, 24] and came out with [12, 40]"),
    (Exploding, "shapes: the new context is not finite for ordinary input"),
    (Float32, "shapes: the context comes out as torch.float32 where everything is float64"),
    (Single, "batch of one: the new context is not finite"),
    (TwoDimensions, "leading dimensions: it raised RuntimeError: "),
    (Mixing, "rows: a result is off by"),
    (Mixing, "batch of one: a result is off by"),
    (Rough, "float32: a result is off by"),
    (Lerp, "bfloat16: under torch.autocast it raised RuntimeError: expected dtype"),
    (Counting, "repetition: a result is off by"),
    (Dropping, "repetition: forward draws from torch's global generator"),
    (Spectral, "tensors: forward changes map.parametrizations.weight.0._u, map.param"),
    (Late, "tensors: forward changes late"),
    (Plain, "tensors: steps_C is no parameter or buffer, and stays behind when the model moves"),
    (InTraining, "training: a result is off by"),
    (Sharing, "two: they have the same map.bias; make it in __init__"),
    (InPlace, "inputs: the context or token it was given was changed; work on a copy"),
    (Uninitialised, "initialise: it leaves map.bias, norm.weight, norm.bias as it was"),
    (Infinite, "initialise: it makes map.bias infinite; look for log or division at 0"),
    (GlobalNumbers, "initialise: initialise draws from torch's global generator"),
    (OwnNumbers, "initialise: map.weight is the same for another seed"),
    (NumbersOfTime, "initialise: map.weight differs for the same seed"),
    (DetachedContext, "gradient: the new context does not depend on the context, or is detached"),
    (Deaf, "gradient: the new context does not depend on the token, or is detached"),
    (Spare, "gradient: spare_C gets none; use it without detach()"),
    (Steep, "gradient: that of the context is not finite; look for sqrt"),
    (Once, "second gradient: a result is off by"),
    (OtherAtTheEnd, "is last: a result is off by"),
    (Unsaved, "state: a result is off by"),
    (Keeping, "copy: copy.deepcopy raised RuntimeError: "),
]
