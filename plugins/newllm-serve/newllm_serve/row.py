"""One text under way in the batch."""

import asyncio
import time
from collections import deque
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from newllm_core.config import GenerationConfig
from newllm_core.data.text_stream import text_stream
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.generation.writer import StopStrings, Tail
from newllm_serve.errors import Refused

TOO_SLOW = "there was no time to read the prompt: send less, or try again later"


class Row:
    """A text: what is to be read before the next token is chosen, and what came of it.

    With `context_C`, `pending`, `last`, `random` and `recent` it is a session to `save_state`.

    Args:
        start_C: the context that the text goes on from [C].
        before: ids to read before the prompt: what was not read of the text that this continues.
        prompt: ids of the prompt.
        tokenizer: the model's.
        options: how tokens are chosen, and how many.
        stop: strings that end the text before them.
        ends: tokens that end the text.
        seed: of the choices.
        seconds: after so many the text ends where it is.
        inbox: gets (this row, text as it comes, whether it is over).
        undecoded: of the text that this continues.
        recent: tokens of it whose repetition may cost something.

    Attributes:
        finish_reason: "stop" or "length", in the end.
        error: what made it impossible.
        is_wanted: False once nobody waits for it.
        num_chosen: tokens so far.
    """

    def __init__(
        self,
        start_C: Tensor,
        before: Sequence[int],
        prompt: Sequence[int],
        tokenizer: TextTokenizer,
        options: GenerationConfig,
        *,
        stop: Sequence[str],
        ends: Collection[int],
        seed: int,
        seconds: float,
        inbox: asyncio.Queue[tuple["Row", str, bool]],
        undecoded: Sequence[int] = (),
        recent: Sequence[int] = (),
    ) -> None:
        self.start_C = self.context_C = start_C
        self.unread = deque([*before, *prompt])
        self.options = options
        self.ends = ends
        self.random = torch.Generator().manual_seed(seed)
        self.recent = deque(recent, maxlen=options.penalty_tokens)
        self.recent.extend(prompt)
        self.deadline = time.monotonic() + seconds
        self.pending: int | None = None
        self.last: int | None = None
        self.num_read = 0
        self.num_chosen = 0
        self.inbox = inbox
        self.finish_reason = ""
        self.error: Refused | None = None
        self.is_wanted = True
        self._decoded = text_stream(tokenizer, undecoded)
        if prompt:
            self._decoded.follow(prompt)
        self._stop = StopStrings(stop)

    @property
    def is_over(self) -> bool:
        """Say whether it has ended, well or not."""
        return bool(self.finish_reason) or self.error is not None

    @property
    def is_plain(self) -> bool:
        """Say whether the most likely token is always chosen, whatever came before."""
        return self.options.temperature == 0 and self.options.repetition_penalty == 1

    @property
    def penalised(self) -> Collection[int]:
        """Return the tokens whose repetition costs something."""
        costs = self.options.repetition_penalty != 1
        return set(self.recent).difference(self.ends) if costs else ()

    @property
    def tail(self) -> Tail:
        """Return what a text that goes on from here needs of this one."""
        return Tail(self._decoded.state())

    def take(self, token: int) -> str:
        """Add the token chosen; return the text that is certain now, and see whether it ends."""
        self.pending = token
        if token in self.ends:
            self.finish_reason = "stop"
            return self._stop.flush()
        self.num_chosen += 1
        self.recent.append(token)
        text = self._stop.push(self._decoded.push(token))
        if self._stop.found is not None:
            self.finish_reason = "stop"
        elif self.num_chosen >= self.options.max_tokens:
            self.finish_reason = "length"
            text += self._stop.flush()
        else:
            self.unread.append(token)
        return text

    def run_out_of_time(self) -> str:
        """End where it is; return the rest of its text."""
        if self.num_chosen == 0:
            self.error = Refused(503, TOO_SLOW)
            return ""
        self.finish_reason = "length"
        return self._stop.flush()
