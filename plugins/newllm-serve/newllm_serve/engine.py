"""One thread owns the model and lets all texts read or write one token a step, side by side.

A text joins and leaves between two steps, so none waits for another to end, and a long prompt
takes one row like everything else. Shapes: N rows, C context_dim, V vocabulary.
"""

import asyncio
import logging
import math
import threading
import time

import torch
from torch import Tensor

from newllm_core.errors import DivergedError
from newllm_core.generation.sampling import choose
from newllm_core.model.language_model import LanguageModel
from newllm_serve.errors import Refused
from newllm_serve.row import Row

log = logging.getLogger(__name__)
NOT_FINITE = "the context grew without bounds: begin anew, or ask for fewer tokens"
STOPPED = "the server is stopping: try again later"
FAILED = "the model failed; the server's log says why"


class Engine:
    """Steps the model for all texts together, in its own thread.

    Args:
        model: on the device to compute on; nobody else uses it meanwhile.
    """

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._head = model.heads()[-1]
        self._device = model.device
        self._rows: list[Row] = []
        self._joining: list[Row] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    @property
    def num_rows(self) -> int:
        """Count the texts that are under way."""
        return len(self._rows) + len(self._joining)

    def start(self) -> None:
        """Begin; texts tell the running event loop what came of them."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End every text that is under way, and the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def add(self, rows: list[Row]) -> None:
        """Let texts join before the next step."""
        with self._changed:
            self._joining += rows
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._rows or self._joining or self._stopping)
                self._rows, self._joining = self._rows + self._joining, []
                if self._stopping:
                    self._fail(503, STOPPED)
                    return
            try:
                self._turn()
            except Exception:  # a cell of somebody's may raise anything; the next text is served
                log.exception("a step failed")
                self._fail(500, FAILED)

    def _turn(self) -> None:
        """Make one step; rows that are done, too late or unwanted leave."""
        now = time.monotonic()
        told: list[tuple[Row, str]] = []
        for row in self._rows:
            if row.is_wanted and row.deadline < now:
                told.append((row, row.run_out_of_time()))
        going = [row for row in self._rows if row.is_wanted and not row.is_over]
        if going:
            told += self._step(going)
        self._rows = [row for row in going if not row.is_over]
        self._tell(told)

    @torch.inference_mode()
    def _step(self, rows: list[Row]) -> list[tuple[Row, str]]:
        tokens = [row.unread.popleft() for row in rows]
        tokens_N = torch.tensor(tokens, device=self._device)
        context_NC = torch.stack([row.context_C for row in rows])
        read = self._model.step(context=context_NC, token=self._model.embed(tokens_N))[-1]
        for row, token, context_C in zip(rows, tokens, read.unbind(0), strict=True):
            row.context_C, row.last = context_C, token
            row.num_read += 1
        choosing = [place for place, row in enumerate(rows) if not row.unread]
        if not choosing:
            return []
        if len(choosing) < len(rows):
            read, tokens_N = read[choosing], tokens_N[choosing]
        logits_NV = self._model.predict(self._head, read, tokens_N)
        return self._choose([rows[place] for place in choosing], logits_NV)

    def _choose(self, rows: list[Row], logits_NV: Tensor) -> list[tuple[Row, str]]:
        largest_N, best_N = (part.tolist() for part in logits_NV.max(dim=1))
        drawn = None if all(row.is_plain for row in rows) else logits_NV.cpu().numpy()
        told = []
        for place, row in enumerate(rows):
            try:
                if not math.isfinite(largest_N[place]):
                    raise DivergedError(NOT_FINITE)
                token = best_N[place]
                if drawn is not None and not row.is_plain:
                    token = choose(drawn[place], row.options, row.random, row.penalised)
                told.append((row, row.take(token)))
            except DivergedError:
                row.error = Refused(500, NOT_FINITE)
                told.append((row, ""))
        return told

    def _fail(self, status: int, why: str) -> None:
        for row in self._rows:
            row.error = Refused(status, why)
        self._tell([(row, "") for row in self._rows])
        self._rows = []

    def _tell(self, told: list[tuple[Row, str]]) -> None:
        """Hand text to the event loop, once for all of a step."""
        assert self._loop is not None
        news = [(row, text, row.is_over) for row, text in told if text or row.is_over]
        if news and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, news)


def _deliver(news: list[tuple[Row, str, bool]]) -> None:
    for row, text, is_over in news:
        row.inbox.put_nowait((row, text, is_over))
