"""Every context of a text of any length, exactly and in constant memory, and files of them.

Shapes: T tokens, C context_dim.
"""

import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.data.tokenizer import PIECE_CHARACTERS, TextTokenizer
from newllm_core.errors import ConfigError, InputError
from newllm_core.files.atomic import refuse_existing, remove_leftovers, write_atomically
from newllm_core.files.lock import exclusive
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Task
from newllm_core.runtime.version import newllm_version
from newllm_core.trajectory.sequential import rollout

FORMAT = "newllm contexts"
# So many contexts exist at a time.
TOKENS_AT_ONCE = 4096
# Bytes of a header: numpy leaves room for any length, and three shapes, a hash and a version take
# less than half of the other.
HEADERS = {".npy": 128, ".safetensors": 1024}
COPIED_AT_ONCE = 1 << 20
# What is written of each token: name, type in memory, type in safetensors files.
TENSORS = (("contexts", "<f4", "F32"), ("tokens", "<i8", "I64"), ("offsets", "<i8", "I64"))
OTHERS = ("tokens", "offsets")


@dataclass(frozen=True)
class TokenContexts:
    """Some neighbouring tokens of a text.

    Attributes:
        contexts_TC: the context after each token [T, C].
        tokens_T: ids, int64 [T].
        offsets_T2: where each token begins and ends, in UTF-8 bytes of the text, int64 [T, 2].
            A token that is a part of a character has the place of the whole character.
    """

    contexts_TC: Tensor
    tokens_T: np.ndarray
    offsets_T2: np.ndarray


def contexts_in_order(
    model: LanguageModel, tokenizer: TextTokenizer, chunks: Iterable[str]
) -> Iterator[TokenContexts]:
    """Read the text that comes in `chunks` as one stream; yield every token of it, in order.

    The text follows the end token, as a generated one does. One stream is exact; it cannot be
    read in parallel, so that it takes a step of the model for every token.
    """
    start = torch.tensor([[tokenizer.end_id]], device=model.device)
    context_1C = rollout(model, start, model.start(1))[:, -1]
    begin = 0
    for piece in tokenizer.pieces(chunks, PIECE_CHARACTERS):
        bytes_before = _bytes_before(piece) + begin
        for ids, places in tokenizer.encodings(piece):
            offsets_T2 = bytes_before[np.array(places, np.int64).reshape(-1, 2)]
            tokens_T = ids.astype(np.int64)
            for first in range(0, len(ids), TOKENS_AT_ONCE):
                part = slice(first, first + TOKENS_AT_ONCE)
                tokens_1T = torch.from_numpy(tokens_T[None, part]).to(start.device)
                contexts_1TC = rollout(model, tokens_1T, context_1C)
                context_1C = contexts_1TC[:, -1]
                yield TokenContexts(contexts_1TC[0], tokens_T[part], offsets_T2[part])
        begin = int(bytes_before[-1])


def write_contexts(
    checkpoint: Checkpoint,
    chunks: Iterable[str],
    out: Path,
    *,
    name: str,
    overwrite: bool,
    task: Task,
) -> dict[str, Any]:
    """Write contexts, token ids and byte offsets of a text, see `contexts_in_order`.

    `FILE.safetensors` holds `contexts` float32 [T, C], `tokens` int64 [T] and `offsets` int64
    [T, 2]. For `FILE.npy` these are FILE.npy, FILE.tokens.npy and FILE.offsets.npy. They appear
    when everything is written. `name` is what errors call the text, `task` is told of its bytes.
    Return `files`, `num_tokens` and `context_dim`.

    Raises:
        ConfigError: `out` ends in neither .safetensors nor .npy.
        InputError: there is no text, or a file exists or cannot be written.
    """
    paths = output_files(out, overwrite=overwrite)
    tokenizer = TextTokenizer.from_json(checkpoint.tokenizer_json)
    read = contexts_in_order(checkpoint.model, tokenizer, chunks)
    dim = checkpoint.model.context_dim
    identity = checkpoint.identity()
    metadata = {"format": FORMAT, "checkpoint": identity, "newllm": newllm_version()}
    length = 0

    def write(temporary: Path) -> None:
        nonlocal length
        parts = [temporary, *(temporary.with_name(other) for other in OTHERS)]
        with ExitStack() as opened:
            files = [opened.enter_context(part.open("wb+")) for part in parts]
            # Headers say how long the text is, so they come last; space is kept for them.
            room = HEADERS[out.suffix]
            for file in files:
                file.seek(room)
            length = _fill(files, read, task, name)
            shapes = ((length, dim), (length,), (length, 2))  # of `TENSORS`
            if out.suffix == ".npy":
                for file, (_, dtype, _), shape in zip(files, TENSORS, shapes, strict=True):
                    file.seek(0)
                    described = {"descr": dtype, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(file, described)
            else:
                for other in files[1:]:
                    other.seek(room)
                    shutil.copyfileobj(other, files[0], COPIED_AT_ONCE)
                files[0].seek(0)
                files[0].write(_safetensors_header(shapes, metadata, room))
        for part, path in zip(parts[1:], paths[1:], strict=False):
            write_atomically(path, partial(shutil.move, part))  # maybe on another disk

    with exclusive(out):
        for path in paths:
            remove_leftovers(path)
        write_atomically(out, write)
    return {"files": [str(path) for path in paths], "num_tokens": length, "context_dim": dim}


def _fill(files: Sequence[BinaryIO], read: Iterable[TokenContexts], task: Task, name: str) -> int:
    """Append contexts, ids and offsets to a file each; return how many tokens there were."""
    length = reached = 0
    for part in read:
        contexts_TC = part.contexts_TC.cpu().numpy()
        arrays = (contexts_TC, part.tokens_T, part.offsets_T2)
        for file, values, (_, dtype, _) in zip(files, arrays, TENSORS, strict=True):
            file.write(np.ascontiguousarray(values, dtype).data)
        length += len(part.tokens_T)
        end = int(part.offsets_T2[-1, 1])
        task.advance(end - reached)
        reached = end
    if not length:
        raise InputError(f"{name} is empty: it has no tokens")
    return length


def _safetensors_header(
    shapes: Sequence[tuple[int, ...]], metadata: dict[str, str], size: int
) -> bytes:
    """Describe all three tensors, in `size` bytes: the format allows spaces at the end."""
    header: dict[str, Any] = {"__metadata__": metadata}
    begin = 0
    for (name, dtype, kind), shape in zip(TENSORS, shapes, strict=True):
        end = begin + int(dtype[-1]) * math.prod(shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
        begin = end
    return (size - 8).to_bytes(8, "little") + json.dumps(header).encode().ljust(size - 8)


def output_files(out: Path, *, overwrite: bool) -> list[Path]:
    """List the files that `write_contexts` writes for `out`, that with the contexts first.

    Raises as `write_contexts` does, if one exists and must stay too.
    """
    if out.suffix not in (".safetensors", ".npy"):
        name = out / "contexts.npy" if os.path.isdir(out) else out.with_suffix(".npy")
        raise ConfigError(f"--out {out}: end it in .safetensors or .npy, as {name}")
    others = OTHERS if out.suffix == ".npy" else ()
    paths = [out, *(out.with_suffix(f".{other}.npy") for other in others)]
    for path in paths:
        refuse_existing(path, overwrite=overwrite)
    return paths


def _bytes_before(text: str) -> np.ndarray:
    """Return UTF-8 bytes before each character of `text`, and of all: int64 [characters + 1]."""
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4")
    sizes = 1 + (codes > 0x7F) + (codes > 0x7FF) + (codes > 0xFFFF)
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
