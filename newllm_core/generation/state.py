"""A text or conversation in a file, to go on from later: its size does not depend on its length.

One safetensors file. Tensors: `context` [C] and `random` (state of the generator). Metadata:
format, version, the identity of the checkpoint, tokens chosen but not read and read last, others,
what is not shown yet, and a hash of all of it.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core.data.text_stream import text_stream
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError, reason
from newllm_core.files.atomic import refuse_existing
from newllm_core.files.from_strangers import require_version
from newllm_core.files.strict_json import parse_json
from newllm_core.files.tensor_files import HASH, content_hash, open_tensors, save_with_hash
from newllm_core.generation.session import Session
from newllm_core.generation.writer import Tail
from newllm_core.model.language_model import LanguageModel

FORMAT = "newllm-text"
FORMAT_VERSION = "2"
LARGEST = 1 << 24


@dataclass(frozen=True)
class SavedState:
    """Where a text was left: see `Session`.

    Attributes:
        random: state of the generator [bytes].
        tail: the end of the text that is not out yet.
        recent: the last tokens that were read or chosen.
        notes: what whoever saved it wanted to know of it.
    """

    context_C: Tensor
    pending: int | None
    last: int | None
    random: Tensor
    tail: Tail
    recent: Sequence[int]
    notes: Mapping[str, Any] = field(default_factory=dict)

    def restore(self, session: Session, *, keep_random: bool = False) -> None:
        """Put `session` there; `keep_random` leaves it its own choices."""
        session.go_on_from(self.context_C, self.pending, self.last, self.recent)
        if not keep_random:
            session.random.set_state(self.random)


def refuse_to_replace(path: Path, *, overwrite: bool) -> None:
    """Raise `InputError` if a state cannot be written to `path`, or would replace anything else."""
    refuse_existing(path, overwrite=overwrite, option="--save-state")
    if os.path.exists(path):
        with open_tensors(path, "state") as file:
            _require_state(path, file.metadata() or {})


def save_state(
    session: Any,  # noqa: ANN401
    tail: Tail,
    path: Path,
    *,
    identity: str,
    overwrite: bool,
    notes: Mapping[str, Any] | None = None,
) -> None:
    """Write atomically where a text is; `InputError` if that fails, or `path` is to stay.

    `session` is a `Session`, or has `context_C`, `pending`, `last`, `random` and `recent` of one;
    `identity` is that of the checkpoint, and `notes` are kept with it as JSON.
    """
    refuse_to_replace(path, overwrite=overwrite)
    tensors = {"context": session.context_C, "random": session.random.get_state()}
    text = {
        "pending": session.pending,
        "last": session.last,
        "recent": list(session.recent),
        "undecoded": list(tail.undecoded),
        "held": tail.held,
        "notes": dict(notes or {}),
    }
    metadata = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "checkpoint": identity,
        "text": json.dumps(text),
    }
    save_with_hash(tensors, path, metadata)


def load_state(
    path: Path, model: LanguageModel, tokenizer: TextTokenizer, *, identity: str
) -> SavedState:
    """Read and validate a state; `InputError` unless it is of the checkpoint of that `identity`."""
    with open_tensors(path, "state") as file:
        metadata = file.metadata() or {}
        _require_state(path, metadata)
        require_version(path, metadata.get("format_version"), FORMAT_VERSION, "save it again")
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        if sum(map(math.prod, shapes.values())) > LARGEST:
            raise InputError(f"{path} is a damaged state: it is too large for one")
        tensors = {name: file.get_tensor(name) for name in shapes}
    if metadata.get(HASH) != content_hash(tensors, metadata):
        raise InputError(f"{path} is damaged: its hash is wrong; save it again")
    if metadata.get("checkpoint") != identity:
        raise InputError(f"{path} is a state of another checkpoint: pass the one it was saved with")
    try:
        return _rebuild(parse_json(metadata["text"]), tensors, model, tokenizer)
    except (ValueError, LookupError, TypeError, RuntimeError, OverflowError) as error:
        raise InputError(f"{path} is a damaged state: {reason(error)}") from error


def _require_state(path: Path, metadata: Mapping[str, str]) -> None:
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is a safetensors file, but no state that generate saved")


def _rebuild(
    text: dict[str, Any],
    tensors: Mapping[str, Tensor],
    model: LanguageModel,
    tokenizer: TextTokenizer,
) -> SavedState:
    context_C, random = tensors["context"], tensors["random"]
    if context_C.shape != (model.context_dim,) or not torch.isfinite(context_C).all():
        raise ValueError("the context does not fit the model")
    torch.Generator().set_state(random)
    pending, last, recent = text["pending"], text["last"], text["recent"]
    tokens = [*recent, *(token for token in (pending, last) if token is not None)]
    if any(type(token) is not int or token not in range(model.vocab_size) for token in tokens):
        raise ValueError("a token is outside the vocabulary")
    held, notes = text["held"], text["notes"]
    if not (isinstance(held, str) and isinstance(notes, dict)):
        raise ValueError("what was held is no text, or the notes are none")
    text_stream(tokenizer, text["undecoded"])
    tail = Tail(text["undecoded"], held)
    return SavedState(context_C, pending, last, random, tail, recent, notes)
