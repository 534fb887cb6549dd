"""Control tokens (document end, chat roles) inside an ordinary `tokenizer.json`.

They are recorded in the post-processor, the usual place for such tokens: the end token closes the
template, chat roles are its further special tokens. One more entry, which is in no template,
carries the size of the vocabulary before newllm added any.

No text becomes one of them, nor any other special token: the file itself has their ids under names
that no text can have, and nothing to look for in a text.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from newllm_core.data.tokenizer_library import LARGEST_ID, load_tokenizer, rules
from newllm_core.errors import InputError, reason

END_TOKENS = ("<|endoftext|>", "</s>", "[SEP]")
_BASE = "newllm:base_vocab_size"
# A noncharacter, twice: what a model is given of a text has it alone, if at all.
HIDDEN = "\ufdd0\ufdd0"
BYTE_NAMES = {f"<0x{byte:02X}>": byte for byte in range(256)}


def read_control_tokens(spec: dict[str, Any]) -> tuple[str, dict[str, int], int]:
    """Return what a parsed `tokenizer.json` records; `LookupError` or `TypeError` without it.

    That is the token that closes a document, the ids of this and of the roles' tokens, and one more
    than the largest id before newllm added tokens.
    """
    ids = _recorded(spec)
    base = ids.pop(_BASE)
    end = spec["post_processor"]["single"][-1]["SpecialToken"]["id"]
    if end not in ids or type(base) is not int or base < 0:
        raise LookupError("its record of control tokens is damaged")
    return end, ids, base


def add_control_tokens(text: str, roles: Sequence[str]) -> str:
    """Return the `tokenizer.json` `text` with an end token, `roles`, and the record of them.

    `InputError` if it cannot be read, or its ids are too large or not one for each token.
    """
    role_tokens = {f"<|{role}|>" for role in roles}
    try:
        spec = json.loads(text)
        known = _recorded(spec)
        # Texts are never cut or padded, and its own template is not ours.
        spec.update(truncation=None, padding=None, post_processor=None)
        spec["added_tokens"] = spec.get("added_tokens") or []
        model = spec["model"]
        if "dropout" in model:
            model["dropout"] = None  # ids would differ every time
        loaded = load_tokenizer(spec, json.dumps(spec))
        model.setdefault("type", type(loaded.model).__name__)
        if not known and "ByteLevel" in rules(spec.get("pre_tokenizer")):
            _prepare_byte_level(spec)
        ids = _token_ids(spec)
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"not a tokenizer.json: {reason(error)}") from error
    names = {name.removeprefix(HIDDEN) for name in ids}
    ends = [name for name in END_TOKENS if name != unknown_token(model)]
    end = next((name for name in ends if name in names), ends[0])
    if end in role_tokens:
        raise InputError(f"chats have the role {end[2:-2]!r}, which is the document end token")
    if _BASE in known and role_tokens <= known.keys():
        return text  # ours already: data prepared with it must fit its checkpoints
    base = known.pop(_BASE, max(ids.values(), default=-1) + 1)
    control = sorted((role_tokens | known.keys()) - {end})
    ids = hide_special_tokens(spec, (end, *control))
    recorded = {name: ids[HIDDEN + name] for name in (end, *control)} | {_BASE: base}
    end_piece = {"SpecialToken": {"id": end, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, end_piece],
        "pair": [first, second, end_piece],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]}
            for name, number in recorded.items()
        },
    }
    return json.dumps(spec, ensure_ascii=False)


def hide_special_tokens(spec: dict[str, Any], control: Iterable[str]) -> dict[str, int]:
    """Put special, unknown and `control` tokens out of the reach of texts; those missing are added.

    What reads like one in a text is encoded as if there were none. `spec`, a parsed
    `tokenizer.json`, is changed; done twice, it does no more. Returns the ids of all tokens by
    name; of the hidden ones it begins with `HIDDEN`. `InputError` for ids that cannot be used.
    """
    model, ids = spec["model"], _token_ids(spec)
    special = {token["content"] for token in spec["added_tokens"] if token["special"]}
    if model.get("byte_fallback"):
        special -= BYTE_NAMES.keys()
    gone = {*special, *control, unknown_token(model)} & {
        name for name in ids if not name.startswith(HIDDEN)
    }
    spec["added_tokens"] = [
        token
        for token in spec["added_tokens"]
        if not (token["special"] or token["content"] in gone or token["content"][:2] == HIDDEN)
    ]
    ids = {HIDDEN + name if name in gone else name: number for name, number in ids.items()}
    for name in control:
        ids.setdefault(HIDDEN + name, max(ids.values(), default=-1) + 1)
    if len(set(ids.values())) != len(ids) or max(ids.values()) > LARGEST_ID:
        raise InputError(f"the tokenizer's ids are not one for each token, up to {LARGEST_ID:,}")
    if isinstance(model["vocab"], dict):
        if model.get("unk_token") in gone:
            model["unk_token"] = HIDDEN + model["unk_token"]
        # Added words are among them: the library would give them other ids.
        model["vocab"] = ids
    else:
        _rename_pieces(model["vocab"], ids)
    if gone and model.get("merges"):
        model["merges"] = [pair for pair in model["merges"] if not gone & _made(model, pair)]
    _keep_apart(spec)
    return ids


def unknown_token(model: dict[str, Any]) -> str | None:
    """Return the name of what stands for anything that a model lacks; None if it has no such."""
    vocabulary, index = model["vocab"], model.get("unk_id")
    if isinstance(vocabulary, dict):
        return model.get("unk_token")
    return None if index is None else vocabulary[index][0]


def _prepare_byte_level(spec: dict[str, Any]) -> None:
    """Take out what has two meanings where letters stand for bytes, and nothing is unknown."""
    model = spec["model"]
    if model["type"] == "BPE" and model.get("unk_token") in END_TOKENS:
        model["unk_token"] = None
    # The letter of a byte may be an added word too: with one id, the word would be that byte.
    spec["added_tokens"] = [
        token
        for token in spec["added_tokens"]
        if token["special"] or token["content"].isascii() or token["content"] not in model["vocab"]
    ]


def _rename_pieces(pieces: list[list[Any]], ids: dict[str, int]) -> None:
    """Give pieces of a Unigram model the names of `ids`; missing ones are as unlikely as any."""
    lowest = min((score for _, score in pieces), default=0.0)
    pieces += [[f"{HIDDEN}{n}", lowest] for n in range(len(pieces), max(ids.values()) + 1)]
    for piece in pieces:
        if HIDDEN + piece[0] in ids:
            piece[0] = HIDDEN + piece[0]
    for name, number in ids.items():
        pieces[number][0] = name


def _made(model: dict[str, Any], pair: Any) -> set[str]:  # noqa: ANN401 - text or a list
    """Return the two tokens of a merge, and the one that it makes."""
    first, second = pair.split(" ") if isinstance(pair, str) else pair
    prefix = model.get("continuing_subword_prefix") or ""
    return {first, second, first + second.removeprefix(prefix)}


def _keep_apart(spec: dict[str, Any]) -> None:
    """Cut what a model is given, so that it never has `HIDDEN` in it, nor a byte spelled out."""
    model, before = spec["model"], spec.get("pre_tokenizer")
    if "ByteLevel" in rules(before) or (model["type"] == "BPE" and not model.get("ignore_merges")):
        return  # letters of bytes are others; merges make no such thing
    pattern = HIDDEN[0] + ("|<(?=0x[0-9A-F]{2}>)" if model.get("byte_fallback") else "")
    cut = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    if before is None:
        spec["pre_tokenizer"] = cut
    elif before != cut and cut not in before.get("pretokenizers", ()):
        spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [before, cut]}


def _token_ids(spec: dict[str, Any]) -> dict[str, int]:
    """Return ids by name, as they are in the file; where two are given the model's own counts."""
    ids = spec["model"]["vocab"]
    if not isinstance(ids, dict):
        ids = {piece: number for number, (piece, _) in enumerate(ids)}
    added = {token["content"]: token["id"] for token in spec["added_tokens"]}
    return {**ids, **{name: number for name, number in added.items() if name not in ids}}


def _recorded(spec: dict[str, Any]) -> dict[str, int]:
    """Return special tokens of a template that newllm wrote, `_BASE` among them; else none."""
    special = (spec.get("post_processor") or {}).get("special_tokens", {})
    if _BASE not in special:
        return {}
    return {name: entry["ids"][0] for name, entry in special.items()}
