"""Layers in sequence: the unit after which a context can be read."""

from torch import Tensor, nn

from newllm_core.model.layer import CVFPLayer
from newllm_core.model.mogrifier import MogrifierLayer

Layer = CVFPLayer | MogrifierLayer


class Recurrence(nn.ModuleList):
    """Blocks in sequence: one update of the context by a token."""

    def forward(self, *, context: Tensor, token: Tensor) -> list[list[Tensor]]:
        """The context [..., C] after each layer of each block.

        Args:
            context: c [..., C].
            token: x [..., E].
        """
        contexts = []
        for number, block in enumerate(self, 1):
            of_block, token = block(context=context, token=token, last=number == len(self))
            context = of_block[-1]
            contexts.append(of_block)
        return contexts


class CVFPBlock(nn.Module):
    """`layers` one after another, each updating context and token embedding."""

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(
        self, *, context: Tensor, token: Tensor, last: bool = False
    ) -> tuple[list[Tensor], Tensor | None]:
        """Update `context` [..., C] by `token` [..., E].

        Args:
            context: c.
            token: x.
            last: nobody reads the token embedding that comes out.

        Returns:
            The context after each layer, the last one being the block's, and the new token.
        """
        contexts = []
        for number, layer in enumerate(self.layers, 1):
            context, token = layer(
                context=context, token=token, last=last and number == len(self.layers)
            )
            contexts.append(context)
        return contexts, token
