"""What an objective is. To write one, extend `Objective` and register it as an entry point.

Shapes: N rows (tokens), C context_dim, E embed_dim, V vocabulary.
"""

import re
from abc import abstractmethod
from collections.abc import Callable, Collection
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from newllm_core.config.option import NoOptions
from newllm_core.errors import PluginError

PREVIOUS, SECOND_READING, EMBEDDING_MATRIX = "previous", "second_reading", "embedding_matrix"
TOKENS_AT = "tokens_at:"
# Where there is no token: `torch.nn.functional.cross_entropy` leaves such targets out.
NO_TOKEN = -100
# An objective that looks further than this is most likely a mistake.
FURTHEST = 1024
OF_READINGS = (PREVIOUS, SECOND_READING)


class Objective(nn.Module):
    """Maps contexts, and what they came from, to the loss that is minimised.

    Its parameters are trained with the recurrence and saved beside it.

    Attributes:
        Options: frozen dataclass of options (`newllm_core.config.option` documents a field).
        reads: what `loss` wants beyond its three arguments, by name. "previous" [N, C]: contexts
            after the same tokens in the reading before. "second_reading" [N, C]: contexts after
            the same tokens at the same weights, from another start, without gradient.
            "tokens_at:+1" or "tokens_at:-2" [N]: the token so many places later or earlier, or
            `NO_TOKEN` beyond the document or window. "embedding_matrix" [V, E], without gradient.
            Phase 2 has no second reading and none before.
        context_dim: C.
        embed_dim: E.
        vocab_size: V.
        options: an instance of `Options`.
    """

    Options: ClassVar[type[Any]] = NoOptions
    reads: Collection[str] = ()

    def __init__(
        self,
        context_dim: int,
        embed_dim: int,
        vocab_size: int,
        options: Any = None,  # noqa: ANN401
    ) -> None:
        super().__init__()
        self.context_dim = context_dim
        self.embed_dim = embed_dim
        self.vocab_size = vocab_size
        self.options = self.Options() if options is None else options

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw every parameter from `generator`: matrices from N(0, 1/inputs), vectors 0."""
        for parameter in self.parameters():
            if parameter.ndim >= 2:
                parameter.normal_(0, parameter.shape[-1] ** -0.5, generator=generator)
            else:
                parameter.zero_()

    @abstractmethod
    def loss(
        self, *, final_NC: Tensor, incoming_NC: Tensor, embedded_NE: Tensor, **read: Tensor
    ) -> Tensor:
        """Compute the mean loss of the rows given, a scalar.

        Args:
            final_NC: c_t after the last cell; carries the gradient.
            incoming_NC: c_{t-1}, without gradient.
            embedded_NE: x_t as it entered the first cell, without gradient.
            read: what `reads` names.
        """


def offsets(reads: Collection[str]) -> dict[str, int]:
    """Find the names of other tokens, and how many places away each is."""
    names = (name for name in reads if name.startswith(TOKENS_AT))
    return {name: int(name.removeprefix(TOKENS_AT)) for name in names}


def check_reads(objective: Objective) -> None:
    """Raise `PluginError` for a name that nobody supplies."""
    if isinstance(objective.reads, str):
        raise PluginError(f"reads is a tuple of names: write ({objective.reads!r:.80},)")
    for name in objective.reads:
        match = re.fullmatch(rf"{TOKENS_AT}(0|[+-][1-9]\d*)", name)
        if match and abs(int(match.group(1))) <= FURTHEST:
            continue
        if name not in (*OF_READINGS, EMBEDDING_MATRIX):
            raise PluginError(
                f"reads {name!r:.80}: choose from previous, second_reading, embedding_matrix, "
                f"tokens_at:+1, tokens_at:-2, … (at most {FURTHEST} places away)"
            )


def tokens_at(
    lookup: Callable[[Tensor], Tensor], length: int, places_N: Tensor, offset: int, end_id: int
) -> Tensor:
    """Look up the tokens `offset` places after (or before) `places_N` [N], as int64.

    A place outside the text, or in another document than the token itself, has `NO_TOKEN`. The text
    has `length` tokens, those of a place by `lookup`; `end_id` closes a document.
    """
    target_N = places_N + offset
    same_N = (target_N >= 0) & (target_N < length)
    # On the way from a token to a later one nothing may be closed, nor on the way back.
    way = torch.arange(min(offset, 0), max(offset, 0), device=places_N.device)
    passed_NS = lookup((places_N[:, None] + way).clamp(0, length - 1))
    same_N &= (passed_NS != end_id).all(1)
    found_N = lookup(target_N.clamp(0, length - 1)).long()
    return torch.where(same_N, found_N, NO_TOKEN)
