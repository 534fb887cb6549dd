"""From a checkpoint to a model folder that Transformers loads without newllm."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from newllm_core.checkpoint.format import Checkpoint, load
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError, PluginError, reason
from newllm_core.files.lock import exclusive
from newllm_core.files.tensor_files import open_tensors, save_tensors
from newllm_core.plugins.registry import CELLS
from newllm_core.runtime.progress import Progress, Silent
from newllm_hub import folder
from newllm_hub.card import model_card
from newllm_hub.cells_source import cells_source, own_cells
from newllm_hub.tokenizer_files import tokenizer_config, tokenizer_json


def export_folder(
    path: Path,
    to: Path,
    *,
    overwrite: bool = False,
    analysis: bool = True,
    license_id: str | None = None,
    languages: Sequence[str] = (),
    name: str | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Write the model folder `to`; return the names of its files.

    Args:
        path: of a checkpoint whose head was trained.
        to: a folder that is new, empty, or with `overwrite` an exported one.
        overwrite: replace the files of an exported folder.
        analysis: measure health for the model card, which takes about a minute.
        license_id: for the model card, as the hub spells it ("apache-2.0").
        languages: for the model card, ISO 639 codes.
        name: of the model; that of the checkpoint by default.
        progress: is told how far it is.

    Raises:
        InputError: there is no such checkpoint, no head was trained, or `to` is in the way.
        PluginError: the cell is not newllm's own.
    """
    refuse_to_replace(to, overwrite=overwrite)
    watcher: Progress = progress or Silent()
    checkpoint = load(path, progress=watcher)
    checkpoint.require_trained_head()
    require_own_cell(checkpoint)
    card = model_card(
        checkpoint,
        name=name or path.stem,
        analysis=analysis,
        license_id=license_id,
        languages=languages,
        progress=watcher,
    )
    to = Path(os.path.realpath(to))  # a link may lead to another disk, where no file can be moved
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as temporary:
            made = Path(temporary)
            _write_tensors(path, checkpoint, made)
            for file, content in _texts(checkpoint, card).items():
                (made / file).write_text(content, encoding="utf-8")
            for file in (folder.MODEL, folder.COMPANION):  # which safetensors keeps private
                (made / file).chmod((made / folder.CONFIG).stat().st_mode)
            with exclusive(to, option="--to"):
                refuse_to_replace(to, overwrite=overwrite)  # others may have written it meanwhile
                to.mkdir(exist_ok=True)
                for file in folder.FILES:
                    os.replace(made / file, to / file)
    except OSError as error:
        raise InputError(f"cannot write {to}: {reason(error)}") from error
    return list(folder.FILES)


def refuse_to_replace(to: Path, *, overwrite: bool) -> None:
    """Raise `InputError` if `to` has anything but what `overwrite` lets be replaced."""
    if os.path.isdir(to) and not any(to.iterdir()):
        return
    if os.path.exists(to) and not (os.path.isdir(to) and os.path.isfile(to / folder.COMPANION)):
        raise InputError(f"{to} is there and is no exported model: choose another --to")
    if os.path.exists(to) and not overwrite:
        raise InputError(f"{to} exists: choose another --to, or pass --overwrite to replace it")


def require_own_cell(checkpoint: Checkpoint) -> None:
    """Raise `PluginError` if the modeling file cannot have the checkpoint's cell."""
    cell = CELLS.find(checkpoint.config.model.cell)
    if not cell.is_own:
        raise PluginError(
            f"{CELLS.describe(cell)} cannot be exported: the code in a model folder has newllm's "
            f"own cells only ({', '.join(own_cells())})"
        )


def _write_tensors(path: Path, checkpoint: Checkpoint, made: Path) -> None:
    num_heads = checkpoint.model.num_heads
    loaded: dict[str, Tensor] = {}
    rest: dict[str, Tensor] = {}
    with open_tensors(path, "checkpoint") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            there = folder.name_in_folder(name, num_heads)
            (rest if there is None else loaded)[there or name] = file.get_tensor(name)
        metadata = {**file.metadata(), "format": folder.COMPANION_FORMAT}
    save_tensors(loaded, made / folder.MODEL, {"format": "pt"})
    save_tensors(rest, made / folder.COMPANION, metadata)


def _texts(checkpoint: Checkpoint, card: str) -> dict[str, str]:
    """Return the content of every file that is text."""
    text = checkpoint.tokenizer_json
    tokenizer = TextTokenizer.from_json(text)
    end = tokenizer.end_id
    tokens = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end}
    # A reply ends where the next message would begin.
    ends = [end, *tokenizer.role_ids.values()] if tokenizer.role_ids else end
    documents: dict[str, Any] = {
        folder.CONFIG: _config(checkpoint) | tokens,
        "generation_config.json": tokens | {"eos_token_id": ends},
        "tokenizer_config.json": tokenizer_config(text),
    }
    written = {name: json.dumps(content, indent=2) + "\n" for name, content in documents.items()}
    code = (Path(__file__).parent / folder.CODE).read_text(encoding="utf-8")
    return written | {
        folder.CODE: f"{code}\n\n{cells_source()}",
        folder.TOKENIZER: tokenizer_json(text),
        folder.CARD: card,
    }


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    model = checkpoint.model
    module = folder.CODE.removesuffix(".py")
    return {
        "model_type": "newllm",
        "architectures": ["NewllmForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{module}.NewllmConfig",
            "AutoModelForCausalLM": f"{module}.NewllmForCausalLM",
        },
        "dtype": "float32",
        "vocab_size": model.vocab_size,
        "context_dim": model.config.context_dim,
        "embed_dim": model.config.embed_dim,
        "cell": model.config.cell,
        "cell_options": model.cell_options,
        "layer_structure": list(model.config.layer_structure),
        "memory_dims": model.config.memory_dims,
        "head_hidden": model.config.head_hidden,
        "head_reads_token": model.config.head_reads_token,
        "head_bigrams": model.config.head_bigrams,
        "tie_word_embeddings": model.config.tie_weights,
    }
