"""What both ways of Phase 2 read: training text, and the loss of the heads in it.

Shapes: N rows (tokens), T tokens of a text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from newllm_core.config import Phase2Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import to_device
from newllm_core.training.phase2.head_loss import HeadLoss, plain_cross_entropy
from newllm_core.training.phase2.terms import cross_entropy
from newllm_core.trajectory.text import inputs_at


class Source:
    """Training text [T], and `cross_entropy` of the model's heads: what both ways begin with.

    Attributes:
        candidates: of the next step, see `cross_entropy`.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokens: np.ndarray,
        *,
        end_id: int,
        config: Phase2Config,
        weights: Sequence[float],
        head_loss: HeadLoss = plain_cross_entropy,
    ) -> None:
        self.model = model
        self.tokens = tokens
        self.end_id = end_id
        self.config = config
        self.weights = weights
        self.head_loss = head_loss
        self.candidates = 0

    def cross_entropy(
        self,
        contexts: Sequence[Tensor],
        inputs_N: Tensor,
        targets_N: Tensor,
        **given: Any,  # noqa: ANN401 - generator, counts, rows
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute `terms.cross_entropy` as the next step is to have it."""
        return cross_entropy(
            self.model,
            contexts,
            inputs_N,
            targets_N,
            weights=self.weights,
            dropout=self.config.dropout,
            head_dropout=self.config.head_dropout,
            head_loss=self.head_loss,
            candidates=self.candidates,
            **given,
        )

    def tokens_at(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Look up the tokens before some positions, and those at them, of the same shape."""
        device = self.model.embedding.weight.device
        before = inputs_at(self.tokens, positions, self.end_id)
        at_them = self.tokens[positions].astype(np.int64)
        return (
            to_device(torch.from_numpy(before), device),
            to_device(torch.from_numpy(at_them), device),
        )
