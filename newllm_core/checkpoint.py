"""The one-file format: a safetensors file that needs nothing else to be analysed or trained on.

Tensors: the model's parameters (tied ones once) and `probe.train`, `probe.validation`.
Metadata: strings, JSON where structured (see `Checkpoint`). No pickle is read or written.
"""

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import newllm_core
from newllm_core import settings
from newllm_core.atomic import refuse_existing, write_atomically
from newllm_core.config import Config
from newllm_core.data.dataset_info import SourceInfo
from newllm_core.errors import ConfigError, InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.registry import DATA_SOURCES, Plugin

FORMAT_VERSION = 1
PROBE = "probe."


@dataclass
class Checkpoint:
    """A model and everything that is known about it.

    Attributes:
        model: parameters and shape.
        config: the resolved configuration it was made with.
        tokenizer_json: the tokenizer, as `tokenizers` writes it.
        phase: "phase1", "phase2" or "expand": the command that wrote it.
        probes: token ids [P, warmup + L] of passages of each split.
        warmup: tokens of a passage that are read before it counts.
        history: one mapping per Phase 1 iteration.
        vacuous_terms: loss terms of Phase 1 that had no gradient.
        gate: the figures the gate judges, per split, and its thresholds once it was passed.
        results: what Phase 2 reached, per split; empty before.
        provenance: versions, seed, dataset and plugin distributions.
    """

    model: LanguageModel
    config: Config
    tokenizer_json: str
    phase: str
    probes: dict[str, Tensor]
    warmup: int
    history: list[dict[str, Any]] = field(default_factory=list)
    vacuous_terms: list[str] = field(default_factory=list)
    gate: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def require_tokenizer(self, tokenizer_json: str) -> None:
        """Raise `InputError` unless data was prepared with this checkpoint's tokenizer."""
        if tokenizer_json != self.tokenizer_json:
            raise InputError(
                "the data was prepared with another tokenizer than the checkpoint's: pass the "
                "--data that phase1 was trained on, or prepare this text with that tokenizer "
                "(--tokenizer DIR/tokenizer.json)"
            )

    def require_trained_head(self) -> None:
        """Raise `InputError` unless a head was trained."""
        if self.phase == "phase1":
            raise InputError(
                "this checkpoint comes from phase1 and has no trained head: "
                "run newllm phase2 on it first"
            )

    def identity(self) -> str:
        """SHA-256 of what its contexts and tokens mean: parameters, their shape, the tokenizer."""
        found = hashlib.sha256()
        found.update(json.dumps(dataclasses.asdict(self.config.model)).encode())
        found.update(self.tokenizer_json.encode())
        for name, tensor in sorted(_parameters(self.model).items()):
            found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().contiguous().numpy().data)
        return found.hexdigest()


STRUCTURED = ("history", "vacuous_terms", "gate", "results", "provenance")


def plugin_record(kind: str, plugin: Plugin) -> dict[str, Any]:
    """What a checkpoint says about a plugin; its options are in the config."""
    return {
        "kind": kind,
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "target": plugin.target,
    }


def provenance(
    *,
    dataset: str,
    dataset_path: str,
    plugins: list[dict[str, Any]],
    sources: Iterable[SourceInfo] = (),
) -> dict[str, Any]:
    """Where a checkpoint comes from.

    Args:
        dataset: hash of the prepared data set.
        dataset_path: where that was.
        plugins: records of the plugins that trained it.
        sources: who read the text; their options are not in the config, as `prepare` had them.
    """
    read = [{"kind": DATA_SOURCES.kind, **dataclasses.asdict(source)} for source in sources]
    return {
        "newllm": newllm_core.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "dataset_hash": dataset,
        "dataset_path": dataset_path,
        "plugins": plugins + read,
    }


def save(checkpoint: Checkpoint, path: Path, *, overwrite: bool) -> None:
    """Write atomically.

    Raises:
        InputError: `path` exists and `overwrite` is false, or it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    refuse_existing(path, overwrite=overwrite)
    model = checkpoint.model
    tensors = _parameters(model)
    for split, tokens in checkpoint.probes.items():
        tensors[PROBE + split] = tokens.to(torch.int32)
    metadata = {name: json.dumps(getattr(checkpoint, name)) for name in STRUCTURED} | {
        "format": "newllm",
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(settings.to_dict(checkpoint.config)),
        "tokenizer": checkpoint.tokenizer_json,
        "phase": checkpoint.phase,
        "model": json.dumps(
            {
                "vocab_size": model.vocab_size,
                "num_heads": model.num_heads,
                "reconstruction": model.decoder is not None,
                "seed": model.seed,
                "warmup": checkpoint.warmup,
            }
        ),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        try:
            save_file(tensors, temporary, metadata)
        except SafetensorError as error:  # safetensors words its own I/O errors
            raise OSError(str(error)) from error

    write_atomically(path, write)


def load(path: Path, *, device: torch.device | None = None) -> Checkpoint:
    """Read and validate a checkpoint.

    Raises:
        InputError: missing, truncated, foreign, of a newer format, or with tensors that do not
            fit its config.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise InputError(f"no such checkpoint: {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != "newllm":
                raise InputError(
                    f"{path} is a safetensors file, but not a newllm checkpoint "
                    "(to look at one of its matrices: newllm analyze FILE --tensor NAME)"
                )
            if metadata.get("format_version") != str(FORMAT_VERSION):
                raise InputError(
                    f"{path} has format version {metadata.get('format_version')!r}, this newllm "
                    f"reads {FORMAT_VERSION}: install the version that wrote it"
                )
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not a readable checkpoint: {reason}") from error
    try:
        checkpoint = _rebuild(metadata, tensors)
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, ConfigError) as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{path} is a damaged checkpoint: {reason}") from error
    checkpoint.model.to(device or torch.device("cpu"))
    return checkpoint


def _rebuild(metadata: dict[str, str], tensors: dict[str, Tensor]) -> Checkpoint:
    config = settings.resolve(json.loads(metadata["config"]))
    shape = json.loads(metadata["model"])
    if not isinstance(shape["seed"], int):
        raise ValueError("the seed is no integer")
    probes = {
        name.removeprefix(PROBE): tensors.pop(name).long()
        for name in list(tensors)
        if name.startswith(PROBE)
    }
    for split in ("train", "validation"):
        if split not in probes or probes[split].ndim != 2 or not probes[split].numel():
            raise ValueError(f"no probe tokens of {split}")
        if not 0 <= int(probes[split].min()) <= int(probes[split].max()) < shape["vocab_size"]:
            raise ValueError(f"probe tokens of {split} are outside the vocabulary")
    expected = config.model.embed_dim * shape["vocab_size"]
    if tensors["embedding.weight"].numel() != expected:
        raise ValueError("the embedding does not fit the config")
    model = LanguageModel(
        config.model,
        shape["vocab_size"],
        num_heads=shape["num_heads"],
        reconstruction=shape["reconstruction"],
        seed=shape["seed"],
    )
    wanted = _parameters(model)
    if set(wanted) != set(tensors):
        difference = ", ".join(sorted(set(wanted) ^ set(tensors))[:4])
        raise ValueError(f"tensors do not fit the config: {difference}")
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape or tensor.dtype != wanted[name].dtype:
            raise ValueError(f"tensor {name} is {tensor.dtype} {list(tensor.shape)}")
        if not torch.isfinite(tensor).all():
            raise ValueError(f"tensor {name} holds values that are not finite")
        with torch.no_grad():
            wanted[name].copy_(tensor)
    return Checkpoint(
        model=model,
        config=config,
        tokenizer_json=metadata["tokenizer"],
        phase=metadata["phase"],
        probes=probes,
        warmup=shape["warmup"],
        **{name: json.loads(metadata[name]) for name in STRUCTURED},
    )


def _parameters(model: LanguageModel) -> dict[str, Tensor]:
    """Every parameter once, under its first name (a tied head is the embedding)."""
    return dict(model.named_parameters(remove_duplicate=True))
