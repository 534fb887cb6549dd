"""What the tests of regularizers share: every regularizer with its options, and batches."""

import torch

from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.settings import make_section

N, D = 63, 17
OWN = [name for name, (first, *_) in REGULARIZERS.plugins().items() if first.is_own]

# Every regularizer with its defaults, then every option away from its default.
VARIANTS = [
    *((name, {}) for name in OWN),
    ("ema-variance", {"momentum": 0.6, "epsilon": 0.3}),
    ("ema-variance", {"form": "mean"}),
    ("ema-variance", {"gradient": "detached"}),
    ("ema-variance", {"gradient": "detached", "form": "mean"}),
    ("distribution", {"statistics": "ema"}),
    ("distribution", {"statistics": "ema", "momentum": 0.7}),
    ("covariance-ema", {"momentum": 0.0}),
    ("past-contexts", {"num_contexts": 3}),
    ("past-contexts", {"num_contexts": 100}),
    ("fixed-dimensions", {"share": 0.0}),
    ("fixed-dimensions", {"share": 1.0}),
]


def label(variant):
    name, options = variant
    return "-".join([name, *(f"{key}={value}" for key, value in options.items())])


def trains(variant):
    name, options = variant
    return name != "none" and options.get("gradient") != "detached"


TRAINING_VARIANTS = [variant for variant in VARIANTS if trains(variant)]


def build(variant, dim=D):
    name, options = variant
    regularizer_type = REGULARIZERS.load(name)
    return regularizer_type(dim, make_section(regularizer_type.Options, "regularizer", options))


def batch(n=N, dim=D, seed=0, dtype=torch.float64):
    """Contexts with a mean and a scale per dimension, and token ids."""
    generator = torch.Generator().manual_seed(seed)
    scale, shift = torch.randn(2, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    contexts = noise * (0.5 + scale.abs()) + 0.5 * shift
    tokens = torch.randint(0, 50_000, (n,), generator=generator)
    return contexts.to(dtype), tokens


def gradient(regularizer, contexts, tokens):
    contexts = contexts.clone().requires_grad_()
    (found,) = torch.autograd.grad(regularizer(contexts, tokens_N=tokens), contexts)
    return found
