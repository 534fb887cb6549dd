"""Phase 2 through time: heads, blocks and embeddings learn together.

The text is read in `Streams`. The state is carried from window to window; back-propagation ends
where a window begins.

Shapes: B streams, T tokens of a window, C context_dim, E embed_dim.
"""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from newllm_core.checkpoint.run_state import State
from newllm_core.objectives.base import tokens_at
from newllm_core.parallel import collectives
from newllm_core.runtime.device import to_device
from newllm_core.training.phase2.extra_terms import ExtraTerms
from newllm_core.training.phase2.source import Source, Terms, drop
from newllm_core.training.phase2.streams import Streams
from newllm_core.trajectory.sequential import unroll_embedded
from newllm_core.trajectory.text import inputs_at


@dataclass(eq=False)
class FineTuning(Source):
    """Losses of one window after another, of heads and of `extra` terms.

    Attributes:
        num_steps, num_tokens: of an epoch, see `Streams`.
        context_BC: the state that is carried into the next window.
        epoch: counts from 0.
    """

    _: KW_ONLY
    extra: ExtraTerms | None = None

    def __post_init__(self) -> None:
        self.streams = Streams(len(self.tokens), self.config)
        self.num_steps, self.num_tokens = self.streams.num_steps, self.streams.num_tokens
        self.epoch = 0
        self.context_BC = self.model.start(self.streams.count)

    def begin_epoch(self) -> None:
        """Begin every stream anew, elsewhere."""
        self.epoch += 1
        self.context_BC = self.model.start(self.streams.count)

    def state(self) -> State:
        """Return what the next window needs."""
        return State({"context_BC": self.context_BC}, {"epoch": self.epoch})

    def load_state(self, state: State) -> None:
        """Take over what `state` gave."""
        # A copy lies where tensors do: elsewhere products of it would be rounded otherwise.
        self.context_BC = state.tensors["context_BC"].to(self.context_BC.device, copy=True)
        self.epoch = state.values["epoch"]

    def losses(self, generator: torch.Generator, *, skip: int = 0) -> Iterator[Terms]:
        """Yield losses from window `skip` on; a step is made with each before the next is made."""
        streams = collectives.rows_per_rank(self.streams.count)
        own = collectives.own(streams)
        for of_all_BT in self.streams.windows(self.epoch, skip=skip):
            positions_BT, length = of_all_BT[own], of_all_BT.shape[1]
            inputs_BT, targets_BT = self.tokens_at(positions_BT)
            context_BC = self.context_BC[own]
            rows = [length * count for count in streams]
            x_TBE = self._embed(inputs_BT, generator, rows)
            contexts = unroll_embedded(self.model, x_TBE, context_BC)
            total, plain = self.cross_entropy(
                [read_BTC.flatten(0, 1) for read_BTC in contexts[-self.model.num_heads :]],
                inputs_BT.flatten(),
                targets_BT.flatten(),
                positions_BT.ravel(),
                generator=generator,
                rows=rows,
            )
            if self.extra is not None and self.extra.weights:
                for name, term in self.extra(
                    self.model,
                    contexts[-1],
                    start_BC=context_BC,
                    inputs_BT=inputs_BT,
                    streams=streams,
                    others=partial(self._others, positions_BT),
                ).items():
                    total = total + self.extra.weights[name] * term
                    plain[name] = term.detach()
            self.context_BC = collectives.gather(contexts[-1][:, -1].detach().contiguous(), streams)
            yield Terms(total, plain, of_all_BT.size)

    def _embed(self, ids_BT: Tensor, generator: torch.Generator, rows: Sequence[int]) -> Tensor:
        """Return embedded tokens [T, B, E], some of whose entries the recurrence is to miss."""
        if self.config.input_dropout == 0:
            return self.model.embed(ids_BT.T)
        x_BTE = self.model.embed(ids_BT)
        dropped = drop(x_BTE.flatten(0, 1), self.config.input_dropout, generator, rows)
        return dropped.view_as(x_BTE).transpose(0, 1).contiguous()

    def _others(self, positions_BT: np.ndarray, offset: int) -> Tensor:
        """Look up the tokens `offset` places after those that are read for `positions_BT` [N]."""

        def lookup(places_N: Tensor) -> Tensor:
            # What is read for a position is the token before it.
            return torch.from_numpy(inputs_at(self.tokens, places_N.numpy(), self.end_id))

        places_N = torch.from_numpy(positions_BT.ravel())
        found_N = tokens_at(lookup, len(self.tokens) + 1, places_N, offset, self.end_id)
        return to_device(found_N, self.context_BC.device)
