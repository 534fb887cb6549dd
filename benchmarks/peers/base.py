"""What every neural peer is: tied embeddings around a body that reads a window of tokens.

Shapes: B streams, T tokens of a window, E embedding width, H width of what a body returns, V
vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.model.bigrams import Bigrams
from newllm_core.training.phase2.head_loss import HeadLoss
from newllm_core.training.phase2.source import mixture_loss

State = list[Tensor]

# Of every model: streams times the length of a window.
TOKENS_PER_STEP = 1024


class Peer(nn.Module):
    """Embedding, body, projection, and a softmax tied to the embedding. A subclass has the body.

    As in newllm's own model, embeddings start at standard deviation `E^-1/2` and pass a LayerNorm
    before they are read. Without the projection a residual body would begin by predicting every
    token again, since its sum begins with the embedding.

    Args:
        vocab_size: V.
        width: E, the one number that decides the size of a peer.
        body_width: H.
        dropout: share of returned dimensions that training leaves out, and of those between layers.
        input_dropout: share of embedded dimensions that training leaves out.

    Attributes:
        bigrams: counts that the softmax is mixed with, if any; see `mix`.
        carries_state: whether a window continues where the one before it ended.
        windows: streams x tokens of a step that are tried.
        shapes: of the body that are tried, what `--params` leaves open.
        width_steps: what widths are multiples of, see `comparison.sizing`.
    """

    carries_state = True
    windows: Sequence[str] = ("64x16", "128x8", "32x32")
    shapes: Sequence[str]
    width_steps: Sequence[int] = (16, 8, 4, 2)

    def __init__(
        self,
        vocab_size: int,
        width: int,
        body_width: int,
        *,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.projection = nn.Linear(body_width, width)
        self.head = nn.Linear(width, vocab_size)
        self.head.weight = self.embedding.weight
        nn.init.zeros_(self.head.bias)
        self.dropout = nn.Dropout(dropout)
        self.input_dropout = nn.Dropout(input_dropout)
        self.bigrams: Bigrams | None = None

    def mix(self, bigrams: Bigrams) -> None:
        """Mix the softmax with counts; a gate that reads what the head reads is trained."""
        self.bigrams = bigrams
        self.gate = nn.Linear(self.width, 1)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def nats(
        self, head_loss: HeadLoss, y_NE: Tensor, last_N: Tensor, next_N: Tensor, *, counted: bool
    ) -> Tensor:
        """Compute mean nats of the tokens that follow, with a term for the gate in training.

        Training text was `counted`: each of its places is left out of its own counts.
        """
        loss, nats_N = head_loss(self.head.weight, self.head.bias, y_NE, next_N)
        if self.bigrams is None:
            return loss
        gate_N = self.gate(y_NE.detach())[:, 0].float()
        own_N = torch.ones_like(last_N, dtype=torch.bool) if counted else None
        said_N = self.bigrams.log_probability(last_N, next_N, counted_N=own_N)
        mixed = mixture_loss(nats_N, gate_N, said_N)
        return loss + mixed if counted else mixed

    def start(self, num_streams: int) -> State:
        """The state before any token: tensors whose first dimension is the stream."""
        raise NotImplementedError

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Vectors [B, T, H] from which the next tokens are predicted, and the last state."""
        raise NotImplementedError

    def forward(self, tokens_BT: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a window; the result [B, T, E] goes into `head`."""
        x_BTE = F.layer_norm(self.embedding(tokens_BT), (self.width,))
        y_BTH, state = self.body(self.input_dropout(x_BTE), state)
        return self.dropout(self.projection(y_BTH)), state


def count_parameters(model: nn.Module) -> int:
    """Numbers that a model holds, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def zeros(model: Peer, *shape: int) -> Tensor:
    """A start state of zeros where the model is."""
    return torch.zeros(shape, device=model.embedding.weight.device)
