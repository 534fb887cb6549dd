"""What a request asks for, read with suspicion: every mistake names its parameter."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from newllm_core.config import GenerationConfig
from newllm_core.data.sources.decoding import unicode_text
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError, one_line
from newllm_core.files.strict_json import is_number, parse_json
from newllm_core.generation.chat import ASSISTANT
from newllm_serve.errors import Refused
from newllm_serve.limits import Limits

COMMON = {
    *("model", "stream", "stream_options", "max_tokens", "temperature", "top_p", "seed", "n"),
    *("stop", "user", "session", "top_k", "repetition_penalty"),
}
CHAT = {"messages", "max_completion_tokens", "metadata", "store"}
COMPLETION = {"prompt"}
# OpenAI's parameters that are not served, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0, 0.0),
    "presence_penalty": (0, 0.0),
    "logit_bias": ({},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "echo": (False,),
    "best_of": (1,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "parallel_tool_calls": (True, False),
}


@dataclass(frozen=True)
class Asked:
    """A request, checked.

    Attributes:
        prompts: ids of each.
        options: how tokens are chosen, and how many.
        stop: strings that end a text.
        choices: texts for each prompt.
        seed: of the first text; None for any.
        session: the conversation that this goes on with.
        stream: send text as it comes.
        usage: end the stream with what was used.
        is_chat: the prompt is messages.
        ends: tokens that end a text.
    """

    prompts: Sequence[Sequence[int]]
    options: GenerationConfig
    stop: Sequence[str]
    choices: int
    seed: int | None
    session: str | None
    stream: bool
    usage: bool
    is_chat: bool
    ends: frozenset[int]


class RequestReader:
    """Reads the bodies of requests.

    Args:
        name: of the model.
        tokenizer: its own.
        defaults: how text is written unless a request says otherwise.
        limits: what is refused.
    """

    def __init__(
        self, name: str, tokenizer: TextTokenizer, defaults: GenerationConfig, limits: Limits
    ) -> None:
        self._name = name
        self._tokenizer = tokenizer
        self._defaults = defaults
        self._limits = limits

    def read(self, body: bytes, *, is_chat: bool) -> Asked:
        """Return what is asked for.

        Raises:
            Refused: it is no JSON, or something in it is wrong.
        """
        try:
            given = parse_json(body)
            json.dumps(given, ensure_ascii=False).encode()  # half a character is no text
        except ValueError as error:
            raise Refused(400, one_line(f"the body is not JSON: {error}", 200)) from error
        if not isinstance(given, dict):
            raise Refused(400, "the body is not a JSON object")
        # A parameter that is null was not given.
        given = {key: value for key, value in given.items() if value is not None}
        self._refuse_unknown(given, COMMON | (CHAT if is_chat else COMPLETION))
        self.require_model(_of_type(given, "model", str, self._name))
        limits, defaults = self._limits, self._defaults
        most = "max_completion_tokens" if "max_completion_tokens" in given else "max_tokens"
        most_tokens = min(defaults.max_tokens, limits.tokens)
        options = replace(
            defaults,
            max_tokens=_integer(given, most, most_tokens, 1, limits.tokens),
            temperature=_number(given, "temperature", defaults.temperature, 0, 2),
            top_p=_number(given, "top_p", defaults.top_p, 0, 1),
            top_k=_integer(given, "top_k", defaults.top_k, 1, 1 << 31),
            repetition_penalty=_number(
                given, "repetition_penalty", defaults.repetition_penalty, 0.01, 100
            ),
        )
        prompts = [self._messages(given)] if is_chat else self._prompts(given)
        choices = _integer(given, "n", 1, 1, limits.choices)
        if len(prompts) * choices > limits.choices:
            raise Refused(400, f"more than {limits.choices} texts: prompts times n", "n")
        session = _of_type(given, "session", str, None)
        if session is not None and not 0 < len(session) <= limits.session_id:
            raise Refused(400, f"session has 1 to {limits.session_id} characters", "session")
        if session is not None and len(prompts) * choices > 1:
            raise Refused(400, "a session goes on with one text: n and prompts are 1", "n")
        of_stream = _of_type(given, "stream_options", dict, {})
        ends = {self._tokenizer.end_id, *(self._tokenizer.role_ids.values() if is_chat else ())}
        return Asked(
            prompts,
            options,
            self._stop(given),
            choices,
            _integer(given, "seed", None, -(1 << 63), (1 << 63) - 1),
            session,
            _of_type(given, "stream", bool, False),
            _of_type(of_stream, "include_usage", bool, False),
            is_chat,
            frozenset(ends),
        )

    def require_model(self, name: str | None) -> None:
        """Raise `Refused` if `name` is not the model's."""
        if name != self._name:
            message = f"there is no model {name!r:.100} here, only {self._name!r}"
            raise Refused(404, message, "model", "model_not_found")

    def _refuse_unknown(self, given: Mapping[str, Any], known: set[str]) -> None:
        for key in given.keys() - known:
            if key not in NEUTRAL:
                raise Refused(400, f"there is no parameter {key!r:.100}", key[:100])
            # Not `in`: False is 0, and "logprobs": 0 asks for something.
            neutral = [value for value in NEUTRAL[key] if type(value) is type(given[key])]
            if given[key] not in neutral:
                raise Refused(400, f"{key} is not supported: leave it out", key)

    def _stop(self, given: Mapping[str, Any]) -> list[str]:
        strings = given.get("stop", self._defaults.stop_strings())
        strings = [strings] if isinstance(strings, str) else strings
        most = self._limits.stop_strings
        if not isinstance(strings, list) or not all(isinstance(s, str) and s for s in strings):
            raise Refused(400, "stop is a string or a list of strings, none of them empty", "stop")
        if len(strings) > most:
            raise Refused(400, f"stop has at most {most} strings", "stop")
        return strings

    def _prompts(self, given: Mapping[str, Any]) -> list[list[int]]:
        """Read a text, texts, ids of a text or of texts."""
        prompt = given.get("prompt", "")
        if isinstance(prompt, str) or (prompt and _is_ids(prompt)):
            prompt = [prompt]
        if not isinstance(prompt, list) or not prompt:
            raise Refused(400, "prompt is a text, token ids, or a list of these", "prompt")
        if len(prompt) > self._limits.choices:
            raise Refused(400, f"prompt has at most {self._limits.choices} texts", "prompt")
        found = []
        for part in prompt:
            if _is_ids(part):
                if not all(0 <= token < self._tokenizer.vocab_size for token in part):
                    raise Refused(400, "prompt has an id outside the vocabulary", "prompt")
                found.append(part)
            else:
                found.append(self._encode(part, "prompt"))
        return found

    def _messages(self, given: Mapping[str, Any]) -> list[int]:
        """Return ids of messages, up to where the assistant speaks."""
        roles = self._tokenizer.role_ids
        if ASSISTANT not in roles:
            raise Refused(
                400,
                f"{self._name} was not trained on chats: use /v1/completions, or train it on a "
                "source of chats such as ultrachat",
                "messages",
            )
        messages = _of_type(given, "messages", list, [])
        if not messages:
            raise Refused(400, "messages is a list of at least one message", "messages")
        ids: list[int] = []
        for place, message in enumerate(messages):
            where = f"messages[{place}]"
            if not isinstance(message, dict):
                raise Refused(400, f"{where} is an object with role and content", where)
            role = message.get("role")
            role = "system" if role == "developer" else role
            if not isinstance(role, str) or role not in roles:
                known = ", ".join(roles)
                raise Refused(400, f"{where}.role is one of {known}", f"{where}.role")
            content = message.get("content")
            if isinstance(content, list):
                content = _joined_parts(content, f"{where}.content")
            ids += [roles[role], *self._encode(content, f"{where}.content")]
        return [*ids, roles[ASSISTANT]]

    def _encode(self, text: Any, where: str) -> list[int]:  # noqa: ANN401 - any JSON
        if not isinstance(text, str):
            raise Refused(400, f"{where} is a text", where)
        try:
            return self._tokenizer.encode(unicode_text(text, where))
        except InputError as error:
            raise Refused(400, str(error), where) from error


def _joined_parts(parts: list[Any], where: str) -> str:
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    known = [text for text in texts if isinstance(text, str)]
    if len(known) < len(texts):
        raise Refused(400, f"{where} has parts of type text only", where)
    return "".join(known)


def _is_ids(value: Any) -> bool:  # noqa: ANN401 - any JSON
    return isinstance(value, list) and all(type(token) is int for token in value)


def _of_type(given: Mapping[str, Any], key: str, kind: type[Any], default: Any) -> Any:  # noqa: ANN401
    value = given.get(key, default)
    if key in given and not isinstance(value, kind):
        names = {bool: "true or false", dict: "an object", list: "a list", str: "a text"}
        raise Refused(400, f"{key} is {names[kind]}", key)
    return value


def _number(given: Mapping[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = given.get(key, default)
    if key in given and not (is_number(value) and low <= value <= high):
        raise Refused(400, f"{key} is a number from {low} to {high}", key)
    return float(value)


def _integer(given: Mapping[str, Any], key: str, default: Any, low: int, high: int) -> Any:  # noqa: ANN401
    value = given.get(key, default)
    if key in given and not (type(value) is int and low <= value <= high):
        raise Refused(400, f"{key} is a whole number from {low} to {high}", key)
    return value
