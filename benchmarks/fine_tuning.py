"""Fine-tuning that does not end, for benchmarks that time its steps or count what they do."""

import itertools
from collections.abc import Iterator

import numpy as np
import torch

from newllm_core.config import Phase2Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.training.phase2.fine_tuning import FineTuning
from newllm_core.training.phase2.head_loss import HeadLoss
from newllm_core.training.phase2.source import Terms
from newllm_core.training.phase2.steps import Steps

WINDOWS = 16


def random_tokens(options: Phase2Config, vocab_size: int) -> np.ndarray:
    """Draw the tokens of some windows of every stream."""
    count = options.num_streams * options.bptt * WINDOWS
    return np.random.default_rng(0).integers(0, vocab_size, count)


def fine_tuning(
    model: LanguageModel, options: Phase2Config, head_loss: HeadLoss
) -> tuple[Steps, Iterator[Terms]]:
    """Return what makes steps of a whole model, and their losses, on random tokens."""
    tokens = random_tokens(options, model.vocab_size)
    source = FineTuning(model, tokens, end_id=0, config=options, weights=[1.0], head_loss=head_loss)
    generator = torch.Generator(model.device).manual_seed(0)
    epochs = (source.losses(generator) for _ in itertools.count())
    steps = Steps(list(model.parameters()), options, 1_000_000)
    return steps, itertools.chain.from_iterable(epochs)
