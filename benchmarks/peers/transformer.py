"""Decoder-only transformer (Vaswani et al. 2017) with what became usual since.

LayerNorm before each part (Xiong et al. 2020), rotary positions (Su et al. 2021), SwiGLU (Shazeer
2020).

Shapes: B windows, T tokens, E width, D dimensions of an attention head.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.peers.base import Peer, State

NUM_HEADS = 4
ROTARY_BASE = 10_000.0


class Transformer(Peer):
    """Embedding -> layers -> LayerNorm -> projection -> tied softmax, for each window anew."""

    carries_state = False
    windows = ("8x128", "16x64")
    # Layers.
    shapes = ("4", "2")
    width_steps = (16, 2 * NUM_HEADS)  # rotations need pairs

    def __init__(self, vocab_size: int, width: int, *, shape: str, **dropouts: float) -> None:
        super().__init__(vocab_size, width, width, **dropouts)
        layers = int(shape)
        self.layers = nn.ModuleList(Layer(width, layers, self.dropout.p) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def start(self, num_streams: int) -> State:
        """None."""
        return []

    def body(self, x_BTE: Tensor, state: State) -> tuple[Tensor, State]:
        """Read a window on its own."""
        rotation = rotations(x_BTE.shape[1], self.width // NUM_HEADS, x_BTE.device)
        for layer in self.layers:
            x_BTE = layer(x_BTE, rotation)
        return self.norm(x_BTE), []


class Layer(nn.Module):
    """Attention and SwiGLU, each behind a LayerNorm and added to what came in."""

    def __init__(self, width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        hidden = 8 * width // 3 // 8 * 8  # three matrices with the numbers of the usual two
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        for matrix in (self.out, self.down):  # as GPT-2: the residual sum starts small
            nn.init.normal_(matrix.weight, std=0.02 / (2 * layers) ** 0.5)

    def forward(self, x_BTE: Tensor, rotation: Tensor) -> Tensor:
        """Read windows."""
        streams, length, width = x_BTE.shape
        qkv = self.qkv(self.norm_attention(x_BTE)).view(streams, length, 3 * NUM_HEADS, -1)
        qk, v = qkv.transpose(1, 2).split([2 * NUM_HEADS, NUM_HEADS], dim=1)
        q, k = rotate(qk, rotation).chunk(2, dim=1)
        # The fused kernel for processors takes twice as long over windows as short as these.
        with sdpa_kernel([] if x_BTE.is_cuda else [SDPBackend.MATH]):
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        mixed_BTE = mixed.transpose(1, 2).reshape(streams, length, width)
        return self.mlp(x_BTE + self.dropout(self.out(mixed_BTE)))

    def mlp(self, x_BTE: Tensor) -> Tensor:
        """Read each token alone."""
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
