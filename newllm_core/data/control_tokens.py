"""Control tokens (document end, chat roles) inside an ordinary `tokenizer.json`.

They are recorded in the post-processor, the usual place for such tokens: the end token closes the
template, chat roles are its further special tokens. One more entry, which is in no template,
carries the size of the vocabulary before newllm added any.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from newllm_core.data.tokenizer_library import id_limit, load_tokenizer
from newllm_core.errors import InputError, reason

END_TOKENS = ("<|endoftext|>", "</s>", "[SEP]")
_BASE = "newllm:base_vocab_size"


@dataclass(frozen=True)
class ControlTokens:
    """What a `tokenizer.json` records.

    Attributes:
        end: the token that closes a document.
        ids: of the end token and the roles' tokens.
        base_vocab_size: one more than the largest id before newllm added tokens.
    """

    end: str
    ids: dict[str, int]
    base_vocab_size: int


def read_control_tokens(spec: dict[str, Any]) -> ControlTokens:
    """Return the record in a parsed `tokenizer.json`.

    Raises:
        LookupError: it has none, or one that cannot be.
        TypeError: as above.
    """
    ids = _special_ids(spec)
    base = ids.pop(_BASE)
    end = spec["post_processor"]["single"][-1]["SpecialToken"]["id"]
    if end not in ids or type(base) is not int or base < 0:
        raise LookupError("its record of control tokens is damaged")
    return ControlTokens(end, ids, base)


def add_control_tokens(text: str, roles: Sequence[str]) -> str:
    """Return the `tokenizer.json` `text` with an end token, `roles`, and the record of them.

    Raises:
        InputError: it cannot be read, or its ids leave no room for more tokens.
    """
    try:
        spec = json.loads(text)
        known = _special_ids(spec)
        # Texts are never cut or padded, and its own template is not ours.
        spec.update(truncation=None, padding=None, post_processor=None)
        if "dropout" in spec["model"]:
            spec["model"]["dropout"] = None  # ids would differ every time
        tokenizer = load_tokenizer(spec, json.dumps(spec))
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"not a tokenizer.json: {reason(error)}") from error
    found = (name for name in END_TOKENS if tokenizer.token_to_id(name) is not None)
    end = next(found, END_TOKENS[0])
    role_tokens = {f"<|{role}|>" for role in roles}
    if end in role_tokens:
        raise InputError(f"chats have the role {end[2:-2]!r}, which is the document end token")
    if _BASE in known and role_tokens <= known.keys():
        return text  # ours already: data prepared with it must fit its checkpoints
    base = known.pop(_BASE, id_limit(tokenizer))
    control = sorted((role_tokens | known.keys()) - {end})
    tokenizer.add_special_tokens([end, *control])
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    if len(set(vocabulary.values())) != len(vocabulary):
        raise InputError("the tokenizer's ids have gaps: tokens cannot be added to it")
    spec = json.loads(tokenizer.to_str())
    for added in spec["added_tokens"]:
        added["special"] = added["special"] or added["content"] in (end, *control)
    ids = {**{name: vocabulary[name] for name in (end, *control)}, _BASE: base}
    end_piece = {"SpecialToken": {"id": end, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, end_piece],
        "pair": [first, second, end_piece],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ids.items()
        },
    }
    return json.dumps(spec, ensure_ascii=False)


def _special_ids(spec: dict[str, Any]) -> dict[str, int]:
    """Return special tokens of a template that newllm wrote, `_BASE` among them; else none."""
    special = (spec.get("post_processor") or {}).get("special_tokens", {})
    if _BASE not in special:
        return {}
    return {name: entry["ids"][0] for name, entry in special.items()}
