"""The update network that the original project's cells share.

Shapes: N rows, C context_dim, E embed_dim, H hidden_dim.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.config.option import option
from newllm_core.model.cells.initialisation import draw


@dataclass(frozen=True)
class NetworkOptions:
    """Options of an `UpdateNetwork`."""

    hidden_dim: int | None = option(
        None, "Hidden units; context_dim + embed_dim means one matrix.", low=1, high=1 << 20
    )
    depth: int | None = option(
        None, "Linear maps of an update; none means 1, or 2 with hidden_dim.", low=1, high=4
    )


class MixedNorm(nn.LayerNorm):
    """`(1 - mix) z + mix LayerNorm(z)` of vectors z [..., D]."""

    def __init__(self, dims: int, mix: float) -> None:
        super().__init__(dims)
        self.mix = mix

    def forward(self, z: Tensor) -> Tensor:
        """Normalise `z` [..., D]."""
        normed = super().forward(z)
        return normed if self.mix == 1 else (1 - self.mix) * z + self.mix * normed


class UpdateNetwork(nn.Module):
    """`W [c ; x] + b`, or `depth` linear maps with ReLU between them, of H = `hidden_dim` units.

    The last map is kept as two, one for the context's part and one for the token's, so that a
    part which nobody reads is not computed. `NetworkOptions` has the defaults.
    """

    def __init__(
        self, context_dim: int, embed_dim: int, hidden_dim: int | None, depth: int | None
    ) -> None:
        super().__init__()
        self.widths = (context_dim, embed_dim)
        width = context_dim + embed_dim
        hidden = width if hidden_dim is None else hidden_dim
        depth = depth or (1 if hidden == width else 2)
        sizes = [width, *[hidden] * (depth - 1)]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(sizes))
        self.to_context = nn.Linear(sizes[-1], context_dim)
        self.to_token = nn.Linear(sizes[-1], embed_dim)

    @torch.no_grad()
    def initialise(
        self,
        scheme: str,
        std: float,
        generator: torch.Generator,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """Draw every matrix by `scheme` (see `draw`), biases 0.

        What a cell has beside the network `between` draws, once the first matrix is drawn.
        """
        # The columns for c and those for x are drawn apart: they may be stored apart as well.
        columns: tuple[int, ...] = self.widths
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            layer.weight.copy_(draw(layer.out_features, columns, scheme, std, generator))
            layer.bias.zero_()
            if columns == self.widths:
                between()
            columns = (layer.out_features,)
        last = draw(sum(self.widths), columns, scheme, std, generator)
        if not self.has_hidden_units:
            between()
        parts = zip((self.to_context, self.to_token), last.split(self.widths), strict=True)
        for layer, weight in parts:
            layer.weight.copy_(weight)
            layer.bias.zero_()

    @staticmethod
    def joined(context: Tensor, token: Tensor) -> Tensor:
        """Return `[c ; x]` [N, C + E], under autocast rounded once for all products of it."""
        values, device = torch.cat([context, token], dim=-1), context.device.type
        if torch.is_autocast_enabled(device) and values.dtype == torch.float32:
            return values.to(torch.get_autocast_dtype(device))
        return values

    def forward(self, values: Tensor, *, last: bool) -> tuple[Tensor, Tensor | None]:
        """Map `values`, `[c ; x]`, to parts [N, C] and [N, E]; with `last` None for the second."""
        for layer in self.hidden:
            values = F.relu(layer(values))
        return self.to_context(values), None if last else self.to_token(values)

    @property
    def has_hidden_units(self) -> bool:
        """Say whether the output is linear in hidden units, and not in the input itself."""
        return len(self.hidden) > 0
