"""A newllm tokenizer as Transformers reads it."""

import json
from typing import Any

from newllm_core.data.control_tokens import HIDDEN, hide_special_tokens, read_control_tokens


def tokenizer_json(text: str) -> str:
    """Return the `tokenizer.json` of newllm `text` with control tokens that a text can name.

    The end token is put before each text, not behind it: a model reads it first, as it does between
    documents. Other special tokens stay out of the reach of texts, and are none when decoded.
    """
    spec = json.loads(text)
    end, control, _ = read_control_tokens(spec)
    ids = hide_special_tokens(spec, control)
    names = {HIDDEN + name: name for name in control}
    vocabulary = spec["model"]["vocab"]
    if isinstance(vocabulary, dict):
        renamed = {names.get(name, name): number for name, number in vocabulary.items()}
        spec["model"]["vocab"] = renamed
    else:
        for piece in vocabulary:
            piece[0] = names.get(piece[0], piece[0])
    spec["added_tokens"] += [
        {
            "id": number,
            "content": names.get(name, name),
            "special": True,
            **dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False),
        }
        for name, number in sorted(ids.items(), key=lambda item: item[1])
        if name.startswith(HIDDEN)
    ]
    end_piece = {"SpecialToken": {"id": end, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    of_end = {"id": end, "ids": [control[end]], "tokens": [end]}
    spec["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [end_piece, first],
        "pair": [end_piece, first, second],
        "special_tokens": {end: of_end},
    }
    return json.dumps(spec, ensure_ascii=False)


def tokenizer_config(text: str) -> dict[str, Any]:
    """Return `tokenizer_config.json`, with a chat template if the tokenizer has roles."""
    end, control, _ = read_control_tokens(json.loads(text))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end,
        "eos_token": end,
        "pad_token": end,
        "add_bos_token": True,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if len(control) > 1:
        config["chat_template"] = CHAT_TEMPLATE
    return config


# A message is the token of its role and its content; the end token follows the last one. Text is
# not trimmed: newllm does not either.
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% else %}{{ eos_token }}{% endif %}"
)
