"""Decoder-only transformer (Vaswani et al. 2017) with what became usual since.

RMSNorm before each part (Zhang & Sennrich 2019), rotary positions (Su et al. 2021), SwiGLU (Shazeer
2020).

Shapes: B windows, T tokens, E width, D dimensions of an attention head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.base import Peer, State

NUM_LAYERS = 4
NUM_HEADS = 4
ROTARY_BASE = 10_000.0


class Transformer(Peer):
    """Embedding -> layers -> RMSNorm -> tied softmax; knows nothing beyond its window."""

    carries_state = False
    width_steps = (16, 2 * NUM_HEADS)  # rotations need pairs

    def __init__(self, vocab_size: int, width: int, dropout: float = 0.0) -> None:
        super().__init__(vocab_size, width, dropout)
        self.layers = nn.ModuleList(_Layer(width, dropout) for _ in range(NUM_LAYERS))
        self.norm = nn.RMSNorm(width)

    def start(self, num_streams: int) -> State:
        """None."""
        return []

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a window on its own."""
        rotation = rotations(x_BTE.shape[1], self.width // NUM_HEADS, x_BTE.device)
        for layer in self.layers:
            x_BTE = layer(x_BTE, rotation)
        return self.norm(x_BTE), []


class _Layer(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        hidden = 8 * width // 3 // 8 * 8  # three matrices with the numbers of the usual two
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        for matrix in (self.out, self.down):  # as GPT-2: the residual sum starts small
            nn.init.normal_(matrix.weight, std=0.02 / (2 * NUM_LAYERS) ** 0.5)

    def forward(self, x_BTE: Tensor, rotation: Tensor) -> Tensor:
        streams, length, width = x_BTE.shape
        q, k, v = (
            part.view(streams, length, NUM_HEADS, -1).transpose(1, 2)
            for part in self.qkv(self.norm_attention(x_BTE)).chunk(3, dim=-1)
        )
        q, k = rotate(q, rotation), rotate(k, rotation)
        mixed = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        mixed_BTE = mixed.transpose(1, 2).reshape(streams, length, width)
        x_BTE = x_BTE + self.dropout(self.out(mixed_BTE))
        gate, value = self.up(self.norm_mlp(x_BTE)).chunk(2, dim=-1)
        return x_BTE + self.dropout(self.down(F.silu(gate) * value))


def rotations(length: int, dims: int, device: torch.device) -> Tensor:
    """Cosines and sines of every position and pair of dimensions: [2, T, D/2]."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, dims, 2, device=device) / dims)
    angles = torch.arange(length, device=device)[:, None] * frequencies
    return torch.stack([angles.cos(), angles.sin()])


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turn pairs of dimensions of x [..., T, D] by an angle that grows with the position."""
    cos, sin = rotation.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
