"""The texts of one request, from their beginning to OpenAI's form of what came of them."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

from newllm_core.generation.chat import ASSISTANT
from newllm_core.generation.state import SavedState
from newllm_serve.request import Asked
from newllm_serve.row import Row
from newllm_serve.sessions import Sessions


class Reply:
    """What becomes of a request.

    Args:
        asked: the request.
        rows: a text for each choice of each prompt.
        inbox: of the rows.
        model: name of the model.
        sessions: where its session is kept.
        before: where its session was left; None for a new one.

    Attributes:
        saving: ends once its session is on disk; None before.
    """

    saving: asyncio.Future[None] | None = None

    def __init__(
        self,
        asked: Asked,
        rows: list[Row],
        inbox: asyncio.Queue[tuple[Row, str, bool]],
        *,
        model: str,
        sessions: Sessions,
        before: SavedState | None,
    ) -> None:
        self.asked = asked
        self.rows = rows
        self._inbox = inbox
        self._sessions = sessions
        self._before = before
        kind, thing = (
            ("chatcmpl", "chat.completion") if asked.is_chat else ("cmpl", "text_completion")
        )
        self._thing = thing
        self._head = {
            "id": f"{kind}-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": model,
        }
        self._session: dict[str, Any] = {}

    async def body(self) -> dict[str, Any]:
        """Wait for all texts; return the answer.

        Raises:
            Refused: a text is impossible.
        """
        texts: dict[Row, list[str]] = {row: [] for row in self.rows}
        async for row, text, _ in self._events():
            texts[row].append(text)
        choices = []
        for index, row in enumerate(self.rows):
            text = "".join(texts[row])
            said: dict[str, Any] = {"text": text}
            if self.asked.is_chat:
                said = {"message": {"role": ASSISTANT, "content": text, "refusal": None}}
            choices.append(_choice(index, row.finish_reason, said))
        return {
            **self._head,
            "object": self._thing,
            "choices": choices,
            "usage": self._usage(),
            **self._session,
        }

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the parts of a streamed answer as they come.

        Raises:
            Refused: a text is impossible.
        """
        thing = "chat.completion.chunk" if self.asked.is_chat else self._thing
        head = {**self._head, "object": thing}
        if self.asked.is_chat:
            for index in range(len(self.rows)):
                yield head | {"choices": [_choice(index, None, _delta(ASSISTANT, ""))]}
        async for row, text, is_over in self._events():
            said = _delta(None, text) if self.asked.is_chat else {"text": text}
            if text:
                yield head | {"choices": [_choice(self.rows.index(row), None, said)]}
            if is_over:
                end: dict[str, Any] = {"delta": {}} if self.asked.is_chat else {"text": ""}
                last = _choice(self.rows.index(row), row.finish_reason, end)
                yield head | {"choices": [last]} | self._session
        if self.asked.usage:
            yield head | {"choices": [], "usage": self._usage()}

    async def _events(self) -> AsyncIterator[tuple[Row, str, bool]]:
        """Yield what rows tell; a session is on disk before its text is said to be over."""
        left = len(self.rows)
        while left:
            row, text, is_over = await self._inbox.get()
            if row.error is not None:
                raise row.error
            if is_over and self.asked.session is not None:
                await self._save(self.asked.session, row)
            left -= is_over
            yield row, text, is_over

    async def _save(self, name: str, row: Row) -> None:
        before = 0 if self._before is None else self._before.notes.get("num_tokens", 0)
        num_tokens = before + row.num_read
        saving = asyncio.to_thread(self._sessions.save, name, row, num_tokens)
        self.saving = asyncio.ensure_future(saving)
        # Who waits may be gone at any time; a thread cannot be stopped.
        await asyncio.shield(self.saving)
        self._session = {
            "session": {
                "id": name,
                "is_new": self._before is None,
                "num_tokens": num_tokens,
                "norm": row.context_C.norm().item(),
                "drift": (row.context_C - row.start_C).norm().item(),
            }
        }

    def _usage(self) -> dict[str, int]:
        read = sum(map(len, self.asked.prompts))
        written = sum(row.num_chosen for row in self.rows)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }


def _choice(index: int, finish_reason: str | None, said: dict[str, Any]) -> dict[str, Any]:
    return {"index": index, "logprobs": None, "finish_reason": finish_reason} | said


def _delta(role: str | None, text: str) -> dict[str, Any]:
    return {"delta": ({} if role is None else {"role": role}) | {"content": text}}
