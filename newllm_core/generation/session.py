"""A text under way, token by token: the memory is one context, however long the text gets.

Shapes: C context_dim, V vocabulary.
"""

from collections import deque
from collections.abc import Collection, Iterable, Iterator

import numpy as np
import torch
from torch import Tensor

from newllm_core.config import GenerationConfig
from newllm_core.errors import InputError
from newllm_core.generation.sampling import choose
from newllm_core.model.language_model import LanguageModel


class Session:
    """Reads tokens and chooses the next ones with the last head.

    Weights of the `model` must not change afterwards. `start_id`, the token that closes a document,
    is read first, as in training.

    Attributes:
        random: the source of choices.
        recent: the last tokens that were read or chosen, whose repetition may cost something.
    """

    def __init__(
        self,
        model: LanguageModel,
        options: GenerationConfig,
        *,
        seed: int = 0,
        start_id: int | None = None,
    ) -> None:
        self._model = model
        self._head = model.heads()[-1]
        self._options = options
        self.random = torch.Generator().manual_seed(seed)
        self.recent: deque[int] = deque(maxlen=options.penalty_tokens)
        self._state: tuple[Tensor, int | None, int | None] = (model.start(1)[0], None, None)
        if start_id is not None:
            self.read([start_id])
            self.recent.clear()

    @property
    def context_C(self) -> Tensor:
        """Return the context after everything that was read [C]."""
        return self._state[0]

    @property
    def pending(self) -> int | None:
        """Return the token chosen last, which was not read yet; None if there is none."""
        return self._state[1]

    @property
    def last(self) -> int | None:
        """Return the token read last; None before there is one."""
        return self._state[2]

    def go_on_from(
        self, context_C: Tensor, pending: int | None, last: int | None, recent: Iterable[int] = ()
    ) -> None:
        """Continue the text that another session left there."""
        self._state = (context_C.to(self._model.start(1)), pending, last)
        self.recent.extend(recent)

    def read(self, ids: Iterable[int]) -> None:
        """Read what was chosen last, and then `ids`; `InputError` for one that is no token."""
        self._read_pending()
        for token in ids:
            if not 0 <= token < self._model.vocab_size:
                raise InputError(
                    f"id {token} is outside the vocabulary of {self._model.vocab_size}"
                )
            self._state = (self._after(self.context_C, token), None, token)
            self.recent.append(token)

    def forget_pending(self, ids: Collection[int]) -> None:
        """Never read the token chosen last, if it is one of `ids`."""
        if self.pending in ids:
            self._state = (self.context_C, None, self.last)

    def choose(self, limit: int, ends: Collection[int] = ()) -> Iterator[int]:
        """Yield tokens as they are chosen, up to `limit`; one of `ends` ends the text instead.

        A text that has ended stays so until something is read. `DivergedError` for logits that are
        not finite.
        """
        for _ in range(limit):
            if self.pending in ends:
                return
            self._read_pending()
            logits_V = self._logits()
            penalised: Collection[int] = ()
            if self._options.repetition_penalty != 1:
                penalised = set(self.recent).difference(ends)  # a text may always end
            token = choose(logits_V, self._options, self.random, penalised)
            self._state = (self.context_C, token, self.last)
            if token in ends:
                return
            self.recent.append(token)
            yield token

    def _read_pending(self) -> None:
        context_C, pending, _ = self._state
        if pending is not None:
            # One assignment, so that an interrupt leaves the token either read or pending.
            self._state = (self._after(context_C, pending), None, pending)

    @torch.inference_mode()
    def _after(self, context_C: Tensor, token: int) -> Tensor:
        """Return the context after one more token [C]; the given one stays as it is."""
        model = self._model
        token_E = torch.layer_norm(model.embedding.weight[token], (model.config.embed_dim,))
        return model.read(context=context_C[None], token=token_E[None])[-1][-1][0]

    @torch.inference_mode()
    def _logits(self) -> np.ndarray:
        """Return the last head's logits of the next token [V]."""
        context_C, last = self.context_C, self.last
        if last is None:
            return self._head(context_C).cpu().numpy()
        last_1 = torch.tensor([last], device=context_C.device)
        return self._model.predict(self._head, context_C[None], last_1)[0].cpu().numpy()
