"""Small models whose contexts are known by construction, and checkpoints around them."""

import copy
from functools import cache

import torch

from newllm_core.analysis.analyze import analyze
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import AnalysisConfig, Config, ModelConfig
from newllm_core.model.language_model import LanguageModel

CONTEXT, EMBED, HIDDEN, VOCAB = 32, 40, 96, 120
WARMUP, LENGTH, PASSAGES = 16, 320, 16
ANALYSIS = AnalysisConfig(num_pairs=3000, dynamics_steps=64, memory_lags=8)


def linear_model(keep=0.5, token_scale=None):
    """c' = LayerNorm(keep c + sqrt(1 - keep²) Q x): a mean of the tokens read so far.

    ReLU(a) - ReLU(-a) = a makes the layer linear. Tokens drawn independently then give isotropic
    contexts with a cosine of `keep` between neighbours.
    """
    config = ModelConfig(context_dim=CONTEXT, embed_dim=EMBED, layer_structure=(1,))
    model = LanguageModel(config, VOCAB, cell={"hidden_dim": HIDDEN}, seed=1)
    generator = torch.Generator().manual_seed(5)
    mixing = torch.linalg.qr(torch.randn(EMBED, EMBED, generator=generator))[0][:CONTEXT]
    scale = (1 - keep**2) ** 0.5 if token_scale is None else token_scale
    network = model.cells()[0].network
    change = (keep - 1) * torch.eye(CONTEXT)
    with torch.no_grad():
        # Without a common mean a long sum of tokens does not drift anywhere.
        model.embedding.weight -= model.embedding.weight.mean(0)
        for parameter in network.parameters():
            parameter.zero_()
        read = torch.cat([change, scale * mixing], dim=1)
        network.hidden[0].weight[: 2 * CONTEXT] = torch.cat([read, -read])
        network.to_context.weight[:, :CONTEXT] = torch.eye(CONTEXT)
        network.to_context.weight[:, CONTEXT : 2 * CONTEXT] = -torch.eye(CONTEXT)
    return model


def last_norm(model):
    return model.cells()[-1].norm_context


def healthy():
    return linear_model()


@cache
def _healthy_report():
    return analyze(checkpoint_of(healthy()), checkpoint_path="runs/a.safetensors")


def healthy_report():
    """Return a copy of the report on `healthy()`, which takes a second to make."""
    return copy.deepcopy(_healthy_report())


def collapsed_to_rank(rank):
    model = linear_model()
    with torch.no_grad():
        last_norm(model).weight[rank:] = 0
    return model


def nearly_zero():
    model = linear_model()
    with torch.no_grad():
        last_norm(model).weight.mul_(1e-3)
    return model


def identity_mapping():
    return linear_model(keep=1.0, token_scale=0.07)


def ignoring_tokens():
    """A chaotic walk of its own: only the context decides what comes next, never the token."""
    model = linear_model(token_scale=0.0)
    network = model.cells()[0].network
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        hidden = network.hidden[0]
        hidden.weight[:, :CONTEXT] = torch.randn(HIDDEN, CONTEXT, generator=generator)
        hidden.bias[:] = torch.randn(HIDDEN, generator=generator)
        network.to_context.weight[:] = torch.randn(CONTEXT, HIDDEN, generator=generator)
    return model


def attractor():
    """A large constant swamps whatever was read."""
    model = linear_model()
    generator = torch.Generator().manual_seed(9)
    with torch.no_grad():
        last_norm(model).bias.copy_(10 * torch.randn(CONTEXT, generator=generator))
    return model


def tokenizer_json():
    from tokenizers import Tokenizer, models

    vocab = {f"w{i}": i for i in range(VOCAB)}
    return Tokenizer(models.WordLevel(vocab, unk_token="w0")).to_str()


def good_history():
    return [
        {
            "window": 1,
            "iteration": i,
            "converged_ratio": {"train": 0.9 + i / 100, "validation": 0.9},
            "sweep_terms": {"cvfp": 1 / i, "covariance-ema": 2 / i},
            "gradient_norms": {"cvfp": 0.1, "covariance-ema": 0.2},
            "weight_change": 0.1 * i,
            "effective_rank_ratio": {"train": 0.9, "validation": 0.9},
        }
        for i in (1, 2, 3)
    ]


def random_probes(seed=0, passages=PASSAGES, length=LENGTH):
    generator = torch.Generator().manual_seed(seed)
    shape = (passages, WARMUP + length)
    return {
        split: torch.randint(VOCAB, shape, generator=generator) for split in ("train", "validation")
    }


def checkpoint_of(model, *, history=None, vacuous=(), probes=None, analysis=None):
    config = Config(
        model=model.config,
        cell=model.cell_options,
        analysis=analysis or ANALYSIS,
    )
    return Checkpoint(
        model=model,
        config=config,
        tokenizer_json=tokenizer_json(),
        phase="phase1",
        probes=probes or random_probes(),
        warmup=WARMUP,
        history=good_history() if history is None else history,
        vacuous_terms=list(vacuous),
    )
