"""LayerNorm, or a share of it."""

from torch import Tensor, nn


class MixedNorm(nn.LayerNorm):
    """`(1 - mix) z + mix LayerNorm(z)` of vectors z [..., D]."""

    def __init__(self, dims: int, mix: float) -> None:
        super().__init__(dims)
        self.mix = mix

    def forward(self, z: Tensor) -> Tensor:
        """Normalise `z` [..., D]."""
        normed = super().forward(z)
        return normed if self.mix == 1 else (1 - self.mix) * z + self.mix * normed
