"""newllm's own model: its recurrence, embedding and head, trained and read as every peer is."""

import torch
from torch import Tensor, nn

from benchmarks.peers.base import Peer, State
from newllm_core import settings
from newllm_core.config import ModelConfig
from newllm_core.model.language_model import LanguageModel
from newllm_core.trajectory.sequential import unroll_embedded

PRESET = "language-model"


class ContextVector(Peer):
    """Embedding -> cell of one block -> projection -> tied softmax, from untrained blocks.

    What is trained is what `newllm phase2 --config preset:language-model` trains.
    """

    # The cell, and context dimensions for each embedded one.
    shapes = ("mogrifier 1", "mogrifier 2", "gru 1", "gru 2")

    def __init__(
        self,
        vocab_size: int,
        width: int,
        *,
        shape: str,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        nn.Module.__init__(self)
        cell, ratio = shape.split()
        # Counts are mixed in as with every other peer.
        sizes = {
            "context_dim": int(ratio) * width,
            "embed_dim": width,
            "cell": cell,
            "head_bigrams": 0,
        }
        preset = settings.from_file(f"preset:{PRESET}")
        config: ModelConfig = settings.resolve(preset, {"model": sizes}).model
        self.width = width
        # Initial weights come from the seed that the caller gave torch.
        self.model = LanguageModel(config, vocab_size, seed=torch.initial_seed() % 2**32)
        self.embedding = self.model.embedding
        (self.head,) = self.model.heads()
        assert isinstance(self.head.projection, nn.Linear), "a tied head has one"
        self.projection = self.head.projection
        self.dropout = nn.Dropout(dropout)
        self.input_dropout = nn.Dropout(input_dropout)
        self.bigrams = None

    def start(self, num_streams: int) -> State:
        """Return c_0 = 0."""
        return [self.model.start(num_streams)]

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Read the window token by token."""
        # The model rounds by itself, and not at all if it is not told to.
        device = x_BTE.device.type
        narrow = torch.is_autocast_enabled(device)
        self.model.product_dtype = torch.get_autocast_dtype(device) if narrow else None
        (contexts_BTC,) = unroll_embedded(self.model, x_BTE.transpose(0, 1), state[0])
        return contexts_BTC, [contexts_BTC[:, -1]]
