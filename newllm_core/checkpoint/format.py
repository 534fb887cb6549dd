"""The one-file format: a safetensors file that needs nothing else to be analysed or trained on.

Tensors: the model's parameters (tied ones once) and counts, the objective's (`objective.…`), and
`probe.train`, `probe.validation`.
Metadata: strings, JSON where structured (see `Checkpoint`). No pickle is read or written.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core import settings
from newllm_core.checkpoint.kept import require_kept
from newllm_core.checkpoint.metadata import (
    HASH,
    SPLITS,
    STRUCTURED,
    content_hash,
    model_shape,
    structured,
)
from newllm_core.checkpoint.provenance import another_cell
from newllm_core.config import Config
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import ConfigError, InputError, PluginError, reason
from newllm_core.files.atomic import refuse_existing, write_atomically
from newllm_core.files.from_strangers import require_version
from newllm_core.files.strict_json import finite, parse_json
from newllm_core.files.tensor_files import bytes_of, open_tensors, save_tensors
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import CELLS
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.progress import Progress
from newllm_core.settings import Settings

FORMAT = "newllm"
FORMAT_VERSION = 2
OBJECTIVE = "objective."
PROBE = "probe."
SMALL = 1 << 20
PHASES = ("phase1", "phase2", "expand")


@dataclass
class Checkpoint:
    """A model and everything that is known about it.

    Attributes:
        config: the resolved configuration it was made with.
        tokenizer_json: the tokenizer, as `tokenizers` writes it.
        phase: "phase1", "phase2" or "expand": the command that wrote it.
        objective: parameters of the objective that was trained with the model, by name; its plugin
            is only needed to train on.
        probes: token ids [P, warmup + L] of passages of each split.
        warmup: tokens of a passage that are read before it counts.
        history: one mapping per Phase 1 iteration.
        vacuous_terms: loss terms of Phase 1 that had no gradient.
        gate: the figures the gate judges, per split; once it was passed, its `thresholds` and
            whether blocks were `untrained_blocks`.
        results: what Phase 2 reached, per split; empty before.
        provenance: versions, seed, dataset and plugin distributions.
        altered: whether the file it was read from is not as newllm wrote it. Then what was measured
            is of another file and left out: history, vacuous terms, gate, results.
    """

    model: LanguageModel
    config: Config
    tokenizer_json: str
    phase: str
    probes: dict[str, Tensor]
    warmup: int
    objective: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    vacuous_terms: list[str] = field(default_factory=list)
    gate: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    altered: bool = False

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
        """Return SHA-256 of what its contexts and tokens mean: parameters, shape, tokenizer."""
        found = hashlib.sha256()
        shape = [dataclasses.asdict(self.config.model), self.model.cell_options]
        found.update(json.dumps(shape).encode())
        found.update(self.tokenizer_json.encode())
        for name, tensor in sorted(_tensors(self.model).items()):
            found.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            found.update(bytes_of(tensor))
        return found.hexdigest()


def save(checkpoint: Checkpoint, path: Path, *, overwrite: bool) -> None:
    """Write atomically; `InputError` if that fails, or if `path` exists and is to stay."""
    refuse_existing(path, overwrite=overwrite)
    model = checkpoint.model
    tensors = _tensors(model)
    tensors |= {OBJECTIVE + name: tensor for name, tensor in checkpoint.objective.items()}
    for split, tokens in checkpoint.probes.items():
        tensors[PROBE + split] = tokens.to(torch.int32)
    shape = {name: getattr(model, name) for name in ("vocab_size", "num_heads", "seed")}
    shape["warmup"] = checkpoint.warmup
    metadata = {name: json.dumps(finite(getattr(checkpoint, name))) for name in STRUCTURED} | {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "config": json.dumps(settings.to_dict(checkpoint.config)),
        "tokenizer": checkpoint.tokenizer_json,
        "phase": checkpoint.phase,
        "model": json.dumps(shape),
    }
    metadata[HASH] = content_hash(metadata, sorted(tensors.items()))
    write_atomically(path, lambda temporary: save_tensors(tensors, temporary, metadata))


def is_checkpoint(path: Path) -> bool:
    """Say whether a file is a checkpoint, not another network; `InputError` if it is missing."""
    if path.suffix == ".py" or os.path.isdir(path):
        return False
    with open_tensors(path, "checkpoint") as file:
        return bool((file.metadata() or {}).get("format") == FORMAT)


@torch.inference_mode(False)  # which the caller may be in: the model may be trained on
def load(
    path: Path,
    *,
    given: Settings | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Checkpoint:
    """Read and validate a checkpoint, and put its model on `device`, or where `given` says.

    What is `given` must not contradict what it decides, see `require_kept`. One that is valid
    but not as newllm wrote it is `altered`, of which `progress` is warned.

    Raises:
        InputError: missing, truncated, foreign, of a newer format, or with tensors that do not
            fit its config.
        ConfigError: a setting contradicts it.
        PluginError: its cell cannot be imported or made, or is another one that does not fit.
    """
    if device is None and given is not None:
        device = prepare_device(given.resolve().run)
    with open_tensors(path, "checkpoint") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise InputError(
                f"{path} is a safetensors file, but not a newllm checkpoint (somebody else's "
                "network: newllm analyze FILE --as KIND --tokens IDS; one of its matrices: newllm "
                "analyze FILE --tensor NAME)"
            )
        advice = "install the version that wrote it"
        require_version(path, metadata.get("format_version"), str(FORMAT_VERSION), advice)
        with _refusing_damage(path, metadata):
            config = settings.resolve(parse_json(metadata["config"]))
        if given is not None:
            require_kept(given, config)
        try:
            CELLS.load(config.model.cell)
        except (ConfigError, PluginError) as error:
            raise PluginError(f"{path} cannot be used: {error}") from error
        with _refusing_damage(path, metadata):
            checkpoint = _rebuild(config, metadata, file)
            tensors = ((name, file.get_tensor(name)) for name in sorted(file.keys()))
            found = content_hash(metadata, tensors)
            checkpoint.altered = metadata.get(HASH) != found
            if checkpoint.altered:
                checkpoint.history, checkpoint.vacuous_terms = [], []
                checkpoint.gate, checkpoint.results = {}, {}
                checkpoint.provenance.pop("identity", None)  # no run made this one
            if checkpoint.altered and checkpoint.tokenizer_json:
                size = TextTokenizer.from_json(checkpoint.tokenizer_json).vocab_size
                expected = checkpoint.model.vocab_size
                if size != expected:
                    raise ValueError(f"its tokenizer has {size} tokens, its model {expected}")
    if checkpoint.altered and progress is not None:
        progress.warning(f"{path} is not as newllm wrote it: what was measured of it is left out")
    if progress is not None and (another := another_cell(metadata)):
        progress.warning(f"{path}: {another}")
    checkpoint.model.to(device or torch.device("cpu"))
    return checkpoint


@contextmanager
def _refusing_damage(path: Path, metadata: dict[str, str]) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, ConfigError, InputError) as error:
        if another := another_cell(metadata):
            raise PluginError(f"{path} cannot be used: {another}: {reason(error, 300)}") from error
        raise InputError(f"{path} is a damaged checkpoint: {reason(error, 300)}") from error


def _rebuild(config: Config, metadata: dict[str, str], file: Any) -> Checkpoint:  # noqa: ANN401
    """Return a checkpoint, every part of which is checked before the next larger one is made."""
    shape = model_shape(metadata)
    if shape["num_heads"] > config.model.num_blocks:
        raise ValueError(f"{shape['num_heads']} heads do not fit {config.model.num_blocks} blocks")
    stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    probes = {split: _probe(stored.pop(PROBE + split, None), split, shape) for split in SPLITS}
    of_objective = {n: stored.pop(n) for n in list(stored) if n.startswith(OBJECTIVE)}
    count = sum(math.prod(tensor.get_shape()) for tensor in stored.values())

    def refuse_far_off(expected: int) -> None:
        # A config could ask for any memory; what is near is made, to say which tensor is wrong.
        if sum(config.model.layer_structure) > len(stored) or expected > 2 * count + SMALL:
            raise ValueError(f"tensors do not fit the config: {count:,} values, not {expected:,}")

    model = LanguageModel(
        config.model,
        shape["vocab_size"],
        cell=config.cell,
        num_heads=shape["num_heads"],
        seed=shape["seed"],
        refuse=refuse_far_off,
    )
    wanted = _tensors(model)
    if set(wanted) != set(stored):
        difference = ", ".join(sorted(set(wanted) ^ set(stored))[:4])
        raise ValueError(f"another version wrote it, or tensors do not fit: {difference}")
    for name, parameter in wanted.items():
        _fill(parameter, stored[name], name)
    if model.bigrams is not None:
        model.bigrams.require_order()
    if metadata["phase"] not in PHASES:
        raise ValueError(f"phase is {metadata['phase']!r}")
    return Checkpoint(
        model=model,
        config=config,
        tokenizer_json=metadata["tokenizer"],
        phase=metadata["phase"],
        probes=probes,
        warmup=shape["warmup"],
        objective={n.removeprefix(OBJECTIVE): _finite(t, n) for n, t in of_objective.items()},
        **structured(metadata),
    )


def _probe(stored: Any, split: str, shape: dict[str, Any]) -> Tensor:  # noqa: ANN401
    """Return token ids [P, warmup + L] of one split."""
    shape_PL = [] if stored is None or stored.get_dtype() != "I32" else stored.get_shape()
    if len(shape_PL) != 2 or 0 in shape_PL:
        raise ValueError(f"no probe tokens of {split}")
    tokens = stored[:].long()
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < shape["vocab_size"]:
        raise ValueError(f"probe tokens of {split} are outside the vocabulary")
    warmup, length = shape["warmup"], tokens.shape[1]
    if warmup >= length:
        raise ValueError(f"a warm-up of {warmup} leaves nothing of passages of {length} ({split})")
    return tokens


@torch.no_grad()
def _fill(wanted: Tensor, stored: Any, name: str) -> None:  # noqa: ANN401
    # Before it is read: a damaged file may say that it holds anything.
    fits = stored.get_shape() == list(wanted.shape)
    found = _finite(stored, name) if fits else None
    if found is None or found.dtype != wanted.dtype:
        raise ValueError(f"tensor {name} is {stored.get_dtype()} {stored.get_shape()}")
    wanted.copy_(found)


def _finite(stored: Any, name: str) -> Tensor:  # noqa: ANN401
    """Read a tensor of finite values, of any type: a plugin may have counters."""
    tensor: Tensor = stored[:] if stored.get_shape() else stored[...]
    if not torch.isfinite(tensor).all():
        raise ValueError(f"tensor {name} holds values that are not finite")
    return tensor


def _tensors(model: LanguageModel) -> dict[str, Tensor]:
    """Return all that a model keeps, each once, under its first name (a tied head is not one)."""
    first = dict([*model.named_parameters(), *model.named_buffers()])
    return {name: t for name, t in model.state_dict(keep_vars=True).items() if name in first}
