"""What a cell is: one update of the context by a token.

To write one, extend `Cell` and register it as an entry point of `newllm.cells`.

Shapes: N rows (tokens, streams or both), C context_dim, E embed_dim.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from newllm_core.config.option import NoOptions
from newllm_core.model.cells.initialisation import draw

# Their weights scale what is normalised already.
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm)


class Cell(nn.Module):
    """Maps a context and a token to the next context. Everything else follows from `forward`.

    Attributes:
        Options: frozen dataclass of options (`newllm_core.config.option` documents a field).
        twice_differentiable: whether gradients of `forward` can be differentiated again, as
            Lyapunov exponents do. True unless it calls a function with a gradient of its own.
        context_dim: C.
        embed_dim: E.
        options: an instance of `Options`.
        is_last: nobody reads the token that leaves this cell: it need not be computed, and the
            one that came in may be returned in its place.
    """

    Options: ClassVar[type[Any]] = NoOptions
    twice_differentiable: ClassVar[bool] = True

    def __init__(self, context_dim: int, embed_dim: int, options: Any = None) -> None:  # noqa: ANN401
        super().__init__()
        self.context_dim = context_dim
        self.embed_dim = embed_dim
        self.options = self.Options() if options is None else options
        self.is_last = False

    @torch.no_grad()
    def initialise(self, std: float, generator: torch.Generator) -> None:
        """Draw every parameter from `generator`, the only source of random numbers.

        As it stands: matrices in the order in which they were made, as the option `init` says
        (see `initialisation`) or else from N(0, std²) with std = `model.init_std`, weights of
        LayerNorms and their like 1, every other vector 0.
        """
        scheme = getattr(self.options, "init", "normal")
        for parameter in self.parameters():
            if parameter.ndim >= 2:
                rows, inputs = parameter.flatten(1).shape
                drawn = draw(rows, [inputs], scheme, std, generator)
                parameter.copy_(drawn.view_as(parameter))
            else:
                parameter.zero_()
        for module in self.modules():
            if isinstance(module, NORMS) and module.weight is not None:
                module.weight.fill_(1.0)

    @abstractmethod
    def forward(self, *, context: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
        """Update `context` [N, C] by `token` [N, E]; both may have other leading dimensions.

        Returns:
            The new context [N, C], and the token [N, E] for the next cell: a new one or `token`.
        """
