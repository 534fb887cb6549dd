"""What is in a model folder, and where the tensors of a checkpoint are in it.

`model.safetensors` has what Transformers loads: embedding, blocks, counts and the last head, every
tensor as it is in the checkpoint, the head's under another name. `newllm.safetensors` has the rest
of the checkpoint (probes, the objective, other heads, all metadata): what `newllm import` needs.
"""

import re

MODEL = "model.safetensors"
COMPANION = "newllm.safetensors"
CONFIG = "config.json"
CODE = "modeling_newllm.py"
TOKENIZER = "tokenizer.json"
CARD = "README.md"
FILES = (
    *(MODEL, COMPANION, CONFIG, CODE, TOKENIZER, CARD),
    *("tokenizer_config.json", "generation_config.json"),
)
COMPANION_FORMAT = "newllm-companion"


def name_in_folder(name: str, num_heads: int) -> str | None:
    """Return what a tensor of a checkpoint is called in `MODEL`; None if it is not there."""
    if re.match(r"(embedding|blocks|memory|bigrams)\.", name):
        return name
    last = f"token_output.{num_heads - 1}."
    if not name.startswith(last):
        return None
    of_head = name.removeprefix(last)
    return of_head if re.match(r"(projection|gate|last_token)\.", of_head) else f"head.{of_head}"


def name_in_checkpoint(name: str, num_heads: int) -> str:
    """Return the reverse of `name_in_folder`."""
    if not re.match(r"(head|projection|gate|last_token)\.", name):
        return name
    return f"token_output.{num_heads - 1}.{name.removeprefix('head.')}"
