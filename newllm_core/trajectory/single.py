"""One stream, one token at a time, without gradients: what generation is made of.

Shapes: C context_dim, V vocabulary.
"""

import numpy as np
import torch
from torch import Tensor

from newllm_core.model.language_model import LanguageModel


class SingleStream:
    """A model's recurrence and its last head, for a single stream.

    Args:
        model: on the device to compute on; its weights must not change afterwards.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._head = model.heads()[-1]

    def start(self) -> Tensor:
        """Make the context c_0 = 0 [C]."""
        return self._model.start(1)[0]

    @torch.inference_mode()
    def step(self, context_C: Tensor, token: int) -> Tensor:
        """Read `token`: the next context [C]; the given one stays as it is."""
        model = self._model
        token_E = torch.layer_norm(model.embedding.weight[token], (model.config.embed_dim,))
        return model.read(context=context_C[None], token=token_E[None])[-1][-1][0]

    @torch.inference_mode()
    def logits(self, context_C: Tensor, last: int | None = None) -> np.ndarray:
        """Make next-token logits [V] of the last head; `last` was read last, if anything was."""
        if last is None:
            return self._head(context_C).cpu().numpy()
        last_1 = torch.tensor([last], device=context_C.device)
        return self._model.predict(self._head, context_C[None], last_1)[0].cpu().numpy()
