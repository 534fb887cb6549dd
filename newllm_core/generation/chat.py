"""Turns of a conversation, in the format in which `prepare` writes chats.

A message is the token of its role and the ids of its content; the end token follows the last one.
"""

from collections.abc import Iterator

from newllm_core.config import GenerationConfig
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.generation.session import Session
from newllm_core.generation.writer import Writer, encode_prompt

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"


class Chat:
    """A conversation with a model that was trained on chats.

    Its memory is the context of `session`, which is at the start of a document or where a
    conversation was left: a turn costs what its own tokens cost. The role `answers` replies, and
    `system` is what the conversation begins with, in the role of that name. `InputError` if the
    model was not trained on these roles.
    """

    def __init__(
        self,
        session: Session,
        tokenizer: TextTokenizer,
        options: GenerationConfig,
        *,
        answers: str = ASSISTANT,
        system: str | None = None,
    ) -> None:
        wanted = [USER, answers] if system is None else [SYSTEM, USER, answers]
        missing = [role for role in wanted if role not in tokenizer.role_ids]
        if missing:
            known = ", ".join(tokenizer.role_ids) or "none"
            raise InputError(
                f"this checkpoint was not trained on chats with the role {missing[0]} (its roles: "
                f"{known}): prepare chats that have it, such as ultrachat, and train on them"
            )
        self._session = session
        self._tokenizer = tokenizer
        self._options = options
        self._ends = {tokenizer.end_id, *tokenizer.role_ids.values()}
        self.answers = answers
        if system is not None:
            session.forget_pending(self._ends)
            session.read([tokenizer.role_ids[SYSTEM], *encode_prompt(tokenizer, system)])

    def reply(self, message: str) -> Iterator[str]:
        """Yield the answer to the user's `message` in pieces; `InputError` unless it is text."""
        roles = self._tokenizer.role_ids
        content = encode_prompt(self._tokenizer, message)
        # The model may have opened the next message itself: it is opened here.
        self._session.forget_pending(self._ends)
        writer = Writer(self._session, self._tokenizer, self._options.stop_strings())
        writer.read([roles[USER], *content, roles[self.answers]])
        yield from writer.write(self._options.max_tokens, self._ends)
        yield writer.finish()
