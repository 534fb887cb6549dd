"""Give every token dimensions of its own and push its contexts' energy there."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from newllm_core.config import option
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.precision import at_least_float32

# Below this energy the share is damped: a context of zeros has loss 1 and a finite gradient.
SMALLEST_ENERGY = 1e-12


@dataclass(frozen=True)
class FixedDimensionsOptions:
    """Options of `FixedDimensions`."""

    share: float = option(
        0.25, "Share of dimensions that are a token's own: at least one, never all.", low=0, high=1
    )


def integer_hash(keys_N: Tensor) -> Tensor:
    """Return a hash in [0, 2³²) of integers [N], the same on every machine and in every process.

    The 32-bit mixer `lowbias32` of https://github.com/skeeto/hash-prospector.
    """
    mask = 0xFFFFFFFF
    h_N = keys_N.to(torch.int64) & mask
    # The low 32 bits of a product are right even where its 64 bits wrapped around.
    h_N = ((h_N ^ (h_N >> 16)) * 0x7FEB352D) & mask
    h_N = ((h_N ^ (h_N >> 15)) * 0x846CA68B) & mask
    return h_N ^ (h_N >> 16)


def own_dimensions(tokens_N: Tensor, strides_S: Tensor, *, context_dim: int, count: int) -> Tensor:
    """Return `count` different dimensions [N, count] for every token, from its id alone.

    They are `first, first + stride, first + 2 stride, …` modulo D. `first` and `stride` are
    hashed; strides, which share no divisor with D, repeat nothing before all were met.
    """
    hash_N = integer_hash(tokens_N)
    stride_N = strides_S[integer_hash(hash_N + 1) % len(strides_S)]
    steps_K = torch.arange(count, device=tokens_N.device)
    return (hash_N[:, None] + stride_N[:, None] * steps_K) % context_dim


class FixedDimensions(Regularizer):
    """Share of a context's energy that lies outside its token's own dimensions.

        loss = mean_n [1 - Σ_{d ∈ S(token_n)} c_nd² / Σ_d c_nd²]

    `S(token)` are `share · D` dimensions, a fixed function of the token id: nothing is learned or
    stored per token, and memory is O(N share D) for any vocabulary. The context must then show
    which token was read last, which keeps contexts of different tokens apart; it does not ask for
    anything about the tokens before.
    """

    Options = FixedDimensionsOptions
    uses_tokens = True
    options: FixedDimensionsOptions
    strides_S: Tensor

    def __init__(self, context_dim: int, options: FixedDimensionsOptions | None = None) -> None:
        super().__init__(context_dim, options)
        self.num_dimensions = max(1, min(round(self.options.share * context_dim), context_dim - 1))
        strides = [n for n in range(1, context_dim + 1) if math.gcd(n, context_dim) == 1]
        # Follows from D, so it needs no place in a checkpoint.
        self.register_buffer("strides_S", torch.tensor(strides), persistent=False)

    def loss(self, contexts_ND: Tensor, *, tokens_N: Tensor) -> Tensor:
        """Return the share of energy outside the tokens' own dimensions, a scalar in [0, 1]."""
        own_NK = own_dimensions(
            tokens_N, self.strides_S, context_dim=self.context_dim, count=self.num_dimensions
        )
        energies_ND = at_least_float32(contexts_ND).square()
        own_N = energies_ND.gather(1, own_NK).sum(1)
        return 1 - (own_N / energies_ND.sum(1).clamp_min(SMALLEST_ENERGY)).mean()
