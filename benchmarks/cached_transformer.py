"""A transformer that generates as well as plain PyTorch lets it: keys and values are kept.

Its layers are those of `benchmarks.peers.transformer`. The cache is allocated once.

Shapes: W width, H attention heads, D dimensions of a head, V vocabulary.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers.transformer import NUM_HEADS, Layer, rotate, rotations

NUM_LAYERS = 4


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
        layers = [_Cached(width, max_tokens) for _ in range(NUM_LAYERS)]
        self.layers = nn.ModuleList(layers)
        self._steps = [layer.step for layer in layers]
        self.norm = nn.LayerNorm(width)
        self.rotations = rotations(max_tokens, width // NUM_HEADS, torch.device("cpu"))
        self.place = 0

    @torch.inference_mode()
    def step(self, token: int) -> Tensor:
        """Read a token; what the head reads [W]."""
        x_1W = self.embedding.weight[token][None]
        rotation = self.rotations[:, self.place]
        for step in self._steps:
            x_1W = step(x_1W, self.place, rotation)
        self.place += 1
        return self.norm(x_1W)[0]

    @torch.inference_mode()
    def logits(self, x_W: Tensor) -> Tensor:
        """Next-token logits [V]."""
        return torch.mv(self.embedding.weight, x_W)

    def state_floats(self) -> int:
        """Numbers that must be kept to go on."""
        return 2 * NUM_LAYERS * self.place * self.embedding.embedding_dim


class _Cached(Layer):
    cache: Tensor

    def __init__(self, width: int, max_tokens: int) -> None:
        super().__init__(width, NUM_LAYERS, dropout=0.0)
        shape = (2, NUM_HEADS, max_tokens, width // NUM_HEADS)
        self.register_buffer("cache", torch.zeros(shape), persistent=False)

    def step(self, x_1W: Tensor, position: int, rotation: Tensor) -> Tensor:
        qkv = self.qkv(self.norm_attention(x_1W)).view(3, NUM_HEADS, -1)
        query, key = rotate(qkv[:2], rotation)
        self.cache[0, :, position] = key
        self.cache[1, :, position] = qkv[2]
        keys, values = self.cache[:, :, : position + 1].unsqueeze(1)
        mixed = F.scaled_dot_product_attention(query[None, :, None], keys, values)
        return self.mlp(x_1W + self.out(mixed.reshape(1, -1)))
