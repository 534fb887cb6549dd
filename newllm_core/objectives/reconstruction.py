"""The context as the code of an autoencoder: it must give back what it was made of."""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional as F

from newllm_core.config.option import option
from newllm_core.objectives.base import Objective
from newllm_core.runtime.precision import at_least_float32


@dataclass(frozen=True)
class ReconstructionOptions:
    """Options of `Reconstruction`."""

    decoder: str = option(
        "mlp", "mlp (with one hidden layer of C + E units), or linear.", choices=("mlp", "linear")
    )
    context_weight: float = option(
        0.7, "Weight of c_{t-1}, where x_t has 1: more remembers longer.", low=0
    )


class Reconstruction(Objective):
    """Mean squared error of `decoder(c_t)` and `[c_{t-1} ; x_t]`.

        loss = (w Σ (d_c - c_{t-1})² + Σ (d_x - x_t)²) / (N (w C + E))

    with `[d_c ; d_x] = decoder(c_t)` and `w = context_weight`; no gradient reaches the targets.
    "mlp" is `Linear(C -> C+E) -> ReLU -> Linear(C+E -> C+E)`; "linear" is for models without the
    room, or the tokens, for a layer that is thrown away.

    Source: reconstruction learning in github.com/rato-tokyo/new-llm, 2025.
    """

    Options = ReconstructionOptions
    options: ReconstructionOptions

    def __init__(
        self,
        context_dim: int,
        embed_dim: int,
        vocab_size: int,
        options: ReconstructionOptions | None = None,
    ) -> None:
        super().__init__(context_dim, embed_dim, vocab_size, options)
        width = context_dim + embed_dim
        is_mlp = self.options.decoder == "mlp"
        self.hidden = nn.Linear(context_dim, width) if is_mlp else None
        self.output = nn.Linear(width if is_mlp else context_dim, width)

    def decode(self, final_NC: Tensor) -> Tensor:
        """Guess `[c_{t-1} ; x_t]` [N, C+E]."""
        if self.hidden is not None:
            final_NC = F.relu(self.hidden(final_NC))
        return self.output(final_NC)

    def loss(
        self, *, final_NC: Tensor, incoming_NC: Tensor, embedded_NE: Tensor, **read: Tensor
    ) -> Tensor:
        """Compare the guess with what the context was made of."""
        guess = at_least_float32(self.decode(final_NC))
        of_context, of_token = guess.split([self.context_dim, self.embed_dim], dim=-1)
        weight = self.options.context_weight
        error = weight * F.mse_loss(of_context, incoming_NC.to(guess.dtype), reduction="sum")
        error = error + F.mse_loss(of_token, embedded_NE.to(guess.dtype), reduction="sum")
        return error / (weight * of_context.numel() + of_token.numel())
