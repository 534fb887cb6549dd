"""A transformer that generates as well as plain PyTorch lets it: keys and values are kept.

Decoder-only (Vaswani et al. 2017) with LayerNorm before each part, rotary positions (Su et al.
2021), SwiGLU (Shazeer 2020) and tied embeddings. The cache is allocated once.

Shapes: W width, H attention heads, D dimensions of a head, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_LAYERS = 4
NUM_HEADS = 4
ROTARY_BASE = 10_000.0


class CachedTransformer(nn.Module):
    """One stream, read token by token.

    Args:
        vocab_size: V.
        width: W, a multiple of twice the number of heads.
        max_tokens: room in the cache.

    Attributes:
        place: tokens that were read; set it back to forget the later ones.
    """

    def __init__(self, vocab_size: int, width: int, max_tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        self.layers = nn.ModuleList(_Layer(width, max_tokens) for _ in range(NUM_LAYERS))
        self.norm = nn.LayerNorm(width)
        dims = width // NUM_HEADS
        frequencies = ROTARY_BASE ** (-torch.arange(0, dims, 2) / dims)
        angles = torch.arange(max_tokens)[:, None] * frequencies
        self.cos, self.sin = angles.cos(), angles.sin()
        self.place = 0

    @torch.inference_mode()
    def step(self, token: int) -> Tensor:
        """Read a token; what the head reads [W]."""
        x_1W = self.embedding.weight[token][None]
        cos, sin = self.cos[self.place], self.sin[self.place]
        for layer in self.layers:
            x_1W = layer(x_1W, self.place, cos, sin)
        self.place += 1
        return self.norm(x_1W)[0]

    @torch.inference_mode()
    def logits(self, x_W: Tensor) -> Tensor:
        """Next-token logits [V]."""
        return torch.mv(self.embedding.weight, x_W)

    def state_floats(self) -> int:
        """Numbers that must be kept to go on."""
        return 2 * NUM_LAYERS * self.place * self.embedding.embedding_dim


class _Layer(nn.Module):
    cache: Tensor

    def __init__(self, width: int, max_tokens: int) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        hidden = 8 * width // 3 // 8 * 8  # three matrices with the numbers of the usual two
        self.up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        shape = (2, NUM_HEADS, max_tokens, width // NUM_HEADS)
        self.register_buffer("cache", torch.zeros(shape), persistent=False)

    def forward(self, x_1W: Tensor, position: int, cos: Tensor, sin: Tensor) -> Tensor:
        qkv = self.qkv(self.norm_attention(x_1W)).view(3, NUM_HEADS, -1)
        query, key = _rotate(qkv[:2], cos, sin)
        self.cache[0, :, position] = key
        self.cache[1, :, position] = qkv[2]
        keys, values = self.cache[:, :, : position + 1].unsqueeze(1)
        mixed = F.scaled_dot_product_attention(query[None, :, None], keys, values)
        x_1W = x_1W + self.out(mixed.reshape(1, -1))
        gate, value = self.up(self.norm_mlp(x_1W)).chunk(2, dim=-1)
        return x_1W + self.down(F.silu(gate) * value)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
