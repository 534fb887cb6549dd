"""The Context Vector Fixed-Point property as a loss: reading a text again changes no context."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from newllm_core.config.option import option
from newllm_core.objectives.base import PREVIOUS, SECOND_READING, Objective


@dataclass(frozen=True)
class CvfpOptions:
    """Options of `Cvfp`."""

    teacher: str = option(
        "reading-before",
        "reading-before: the contexts that the last iteration left, as published; same-weights: a "
        "second reading of the same tokens from another start, at the same weights.",
        choices=("reading-before", "same-weights"),
    )


class Cvfp(Objective):
    """Mean squared change of a context from one reading to another.

        reading-before: loss = MSE(c_t^(k), stopgrad c_t^(k-1))
        same-weights:   loss = MSE(f_θ(c_{t-1}, x_t), stopgrad f_θ(c'_{t-1}, x_t))

    where c and c' come from readings of the same tokens that began in different states. The first
    also pulls towards what older weights said; the second is 0 exactly where the start is
    forgotten. Contexts that are all the same have loss 0 too, so a regularizer has to be beside it.

    Source: github.com/rato-tokyo/new-llm, 2025.
    """

    Options = CvfpOptions
    options: CvfpOptions

    def __init__(
        self, context_dim: int, embed_dim: int, vocab_size: int, options: CvfpOptions | None = None
    ) -> None:
        super().__init__(context_dim, embed_dim, vocab_size, options)
        same_weights = self.options.teacher == "same-weights"
        self.teacher = SECOND_READING if same_weights else PREVIOUS
        self.reads = (self.teacher,)

    def loss(
        self, *, final_NC: Tensor, incoming_NC: Tensor, embedded_NE: Tensor, **read: Tensor
    ) -> Tensor:
        """Compare contexts with the teacher's."""
        return F.mse_loss(final_NC, read[self.teacher])
