"""A model with its conversations: requests become rows of the engine."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import GenerationConfig
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.generation.state import SavedState
from newllm_serve.engine import Engine
from newllm_serve.errors import Refused
from newllm_serve.limits import Limits
from newllm_serve.reply import Reply
from newllm_serve.request import Asked, RequestReader
from newllm_serve.row import Row
from newllm_serve.sessions import Sessions


class Service:
    """What one server offers.

    Args:
        name: of the model.
        checkpoint: on the device to compute on; its head was trained.
        tokenizer: of the checkpoint.
        defaults: how text is written unless a request says otherwise.
        limits: how much is taken on.
        sessions: where conversations are kept.

    Attributes:
        about: what /v1/models says of it.
    """

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        tokenizer: TextTokenizer,
        defaults: GenerationConfig,
        limits: Limits,
        sessions: Sessions,
    ) -> None:
        self.limits = limits
        self.reader = RequestReader(name, tokenizer, defaults, limits)
        self.engine = Engine(checkpoint.model)
        self.about = {
            "id": name,
            "object": "model",
            "created": int(time.time()),
            "owned_by": "newllm",
            "context_dim": checkpoint.model.context_dim,
            "roles": list(tokenizer.role_ids),
        }
        self._name = name
        self._tokenizer = tokenizer
        self._sessions = sessions
        self._start_C = checkpoint.model.start(1)[0]
        self._busy: set[str] = set()

    async def begin(self, asked: Asked) -> Reply:
        """Start the texts that are asked for; `end` must follow.

        Raises:
            Refused: the server is full, or the session is in use or unreadable.
        """
        self._refuse_overload(asked)
        name = asked.session
        if name is not None:
            self._refuse_busy(name)
            self._busy.add(name)
        try:
            before = None if name is None else await self._load(name)
            self._refuse_overload(asked)  # others may have come meanwhile
            reply = self._reply(asked, before)
            self.engine.add(reply.rows)
        except BaseException:
            self._busy.discard(name or "")
            raise
        return reply

    def end(self, reply: Reply) -> None:
        """Free what a reply holds, whether it is complete or its client is gone."""
        for row in reply.rows:
            row.is_wanted = False
        name = reply.asked.session or ""
        if reply.saving is None or reply.saving.done():
            self._busy.discard(name)
        else:  # whoever comes next must find what is being written
            reply.saving.add_done_callback(lambda _: self._busy.discard(name))

    async def look_at(self, name: str) -> dict[str, Any]:
        """Describe the state of a session.

        Raises:
            Refused: there is none of that name.
        """
        state = await self._load(name)
        if state is None:
            raise Refused(404, f"there is no session {name!r:.200}", "session")
        return {
            "id": name,
            "num_tokens": state.notes.get("num_tokens", 0),
            "norm": state.context_C.norm().item(),
            "context": state.context_C.tolist(),
        }

    async def forget(self, name: str) -> bool:
        """Remove a session; returns whether there was one.

        Raises:
            Refused: it is in use.
        """
        self._refuse_busy(name)
        self._busy.add(name)
        try:
            return await asyncio.to_thread(self._sessions.remove, name)
        finally:
            self._busy.discard(name)

    async def _load(self, name: str) -> SavedState | None:
        try:
            return await asyncio.to_thread(self._sessions.load, name)
        except InputError as error:
            message = f"session {name!r:.200} cannot be read (DELETE begins it anew): {error}"
            raise Refused(400, message, "session") from error

    def _reply(self, asked: Asked, before: SavedState | None) -> Reply:
        inbox: asyncio.Queue[tuple[Row, str, bool]] = asyncio.Queue()
        seed = secrets.randbits(62) if asked.seed is None else asked.seed % (1 << 62)
        rows = [
            self._row(asked, before, prompt, seed + place, inbox)
            for place, prompt in enumerate(p for p in asked.prompts for _ in range(asked.choices))
        ]
        return Reply(asked, rows, inbox, model=self._name, sessions=self._sessions, before=before)

    def _row(
        self,
        asked: Asked,
        before: SavedState | None,
        prompt: Sequence[int],
        seed: int,
        inbox: asyncio.Queue[tuple[Row, str, bool]],
    ) -> Row:
        start_C = self._start_C
        undecoded: Sequence[int] = ()
        recent: Sequence[int] = ()
        unread = [self._tokenizer.end_id]  # a new text follows the end of another, as in training
        if before is not None:
            start_C, recent = before.context_C.to(self._start_C), before.recent
            undecoded = () if prompt else before.tail.undecoded
            # In a chat the request opens the next message, which the model may have done too.
            forgotten = asked.is_chat and before.pending in asked.ends
            unread = [] if before.pending is None or forgotten else [before.pending]
        return Row(
            start_C,
            unread,
            prompt,
            self._tokenizer,
            asked.options,
            stop=asked.stop,
            ends=asked.ends,
            seed=seed,
            seconds=self.limits.seconds,
            inbox=inbox,
            undecoded=undecoded,
            recent=recent,
        )

    def _refuse_overload(self, asked: Asked) -> None:
        wanted = len(asked.prompts) * asked.choices
        if self.engine.num_rows + wanted > self.limits.texts:
            raise Refused(
                429,
                f"{self.limits.texts} texts are under way already: try again later",
                code="rate_limit_exceeded",
            )

    def _refuse_busy(self, name: str) -> None:
        if name in self._busy:
            message = f"session {name!r:.200} is in another request: wait for its end"
            raise Refused(409, message, "session")
