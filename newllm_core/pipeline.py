"""The commands as functions: from a dataset to a checkpoint, from a checkpoint to the next."""

import dataclasses
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from newllm_core import checkpoint as checkpoints
from newllm_core import settings
from newllm_core.atomic import refuse_existing
from newllm_core.checkpoint import Checkpoint
from newllm_core.config import Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.data.probe import choose_probes
from newllm_core.errors import ConfigError, InputError
from newllm_core.evaluation import evaluate_splits
from newllm_core.expansion import expand
from newllm_core.gate import check_gate, measure_gate
from newllm_core.model.embeddings import load_embeddings
from newllm_core.model.heads import head_weights
from newllm_core.model.language_model import LanguageModel
from newllm_core.progress import Progress
from newllm_core.registry import REGULARIZERS
from newllm_core.runlog import RunLog
from newllm_core.training.objective import regularizer_weight
from newllm_core.training.phase1 import build_regularizers, train_phase1
from newllm_core.training.phase2 import train_phase2

# A checkpoint decides these; phase 2 and analysis read them from it.
CHECKPOINT_SECTIONS = ("data", "model", "phase1", "regularizer", "source")


def run_phase1(
    config: Config,
    dataset: PreparedDataset,
    out: Path,
    *,
    overwrite: bool,
    device: torch.device,
    progress: Progress,
    tensorboard: bool = False,
) -> Checkpoint:
    """Train the blocks of a new model and save it as `out`.

    Raises:
        InputError: `out` exists, or the embeddings cannot be used.
        ConfigError: an unknown regularizer or option.
        PluginError: the regularizer is broken.
        DivergedError: a loss or gradient is not finite.
    """
    refuse_existing(out, overwrite=overwrite)
    every_layer = config.phase1.apply_to == "every-layer"
    count = sum(config.model.layer_structure) if every_layer else 1
    regularizers, options = build_regularizers(config, count)
    weight = regularizer_weight(regularizers, config.phase1)
    config = replace(
        config,
        regularizer=options,
        phase1=replace(config.phase1, dist_reg_weight=weight),
    )
    model = LanguageModel(
        config.model,
        dataset.info.vocab_size,
        reconstruction=config.phase1.objective == "reconstruction",
        seed=config.run.seed,
    )
    if config.model.embeddings != "random":
        added = dataset.info.vocab_size - dataset.info.base_vocab_size
        progress.message(load_embeddings(model, config.model.embeddings, added_tokens=added))
    model.to(device)
    tokens = {"train": dataset.train.tokens, "validation": dataset.validation.tokens}
    with RunLog(out, tensorboard=tensorboard) as log:
        result = train_phase1(
            model, regularizers, tokens, config, device=device, log=log, progress=progress
        )
        probes, warmup = choose_probes(tokens, config.analysis)
        gate = measure_gate(model, probes, warmup, device)
        log.write("gate", **gate)
    for term in result.vacuous_terms:
        progress.warning(f"vacuous term: {term} never had a gradient; it trained nothing")
    if config.phase1.max_iterations and result.weight_change == 0:
        progress.warning("nothing was trained: no weight moved from its initial value")
    checkpoint = Checkpoint(
        model=model,
        config=config,
        tokenizer_json=dataset.tokenizer_json,
        phase="phase1",
        probes=probes,
        warmup=warmup,
        history=result.history,
        vacuous_terms=result.vacuous_terms,
        gate=gate,
        provenance=checkpoints.provenance(
            dataset=dataset.hash,
            dataset_path=str(Path(dataset.path).resolve()),
            plugins=[REGULARIZERS.find(config.phase1.reg)],
        ),
    )
    checkpoints.save(checkpoint, out, overwrite=overwrite)
    return checkpoint


def run_phase2(
    checkpoint: Checkpoint,
    dataset: PreparedDataset,
    config: Config,
    out: Path,
    *,
    overwrite: bool,
    device: torch.device,
    progress: Progress,
    tensorboard: bool = False,
) -> Checkpoint:
    """Pass the gate, train the heads (and blocks), save as `out`.

    Raises:
        GateRefused: Phase 1 left contexts that are degenerate; nothing is written.
        InputError: `out` exists, or the dataset is not the checkpoint's.
    """
    refuse_existing(out, overwrite=overwrite)
    check_dataset(checkpoint, dataset)
    check_gate(checkpoint.gate, config.gate)
    checkpoint = replace(
        checkpoint, gate=checkpoint.gate | {"thresholds": dataclasses.asdict(config.gate)}
    )
    with RunLog(out, tensorboard=tensorboard) as log:
        trained = train_phase2(
            checkpoint,
            dataset,
            config,
            device=device,
            progress=progress,
            log=log,
            scratch=out.parent,
        )
    checkpoints.save(trained, out, overwrite=overwrite)
    return trained


def run_expand(
    checkpoint: Checkpoint,
    dataset: PreparedDataset,
    out: Path,
    *,
    overwrite: bool,
    device: torch.device,
    progress: Progress,
) -> Checkpoint:
    """Clone the trained head to every block, evaluate each, save as `out`."""
    refuse_existing(out, overwrite=overwrite)
    check_dataset(checkpoint, dataset)
    expanded = expand(checkpoint)
    expanded.results = evaluate_splits(
        expanded.model,
        dataset,
        head_weights=head_weights(checkpoint.config.phase2.head_weights, expanded.model.num_heads),
        progress=progress,
    )
    checkpoints.save(expanded, out, overwrite=overwrite)
    return expanded


def check_dataset(checkpoint: Checkpoint, dataset: PreparedDataset) -> None:
    """Raise `InputError` unless `dataset` was made with the checkpoint's tokenizer."""
    if dataset.tokenizer_json != checkpoint.tokenizer_json:
        raise InputError(
            f"{dataset.path} was prepared with another tokenizer than the checkpoint's: pass "
            "--data with the dataset it was trained on, or prepare with its tokenizer"
        )


def checkpoint_layer(checkpoint: Checkpoint) -> dict[str, dict[str, Any]]:
    """The sections of the config that a checkpoint decides, as a layer for `settings.resolve`."""
    saved = settings.to_dict(checkpoint.config)
    return {name: saved[name] for name in CHECKPOINT_SECTIONS}


def check_unchanged(checkpoint: Checkpoint, layers: list[Mapping[str, Mapping[str, Any]]]) -> None:
    """Raise `ConfigError` if a layer asks for another model than the checkpoint's."""
    asked = settings.resolve(checkpoint_layer(checkpoint), *layers).model
    for spec in dataclasses.fields(asked):
        wanted, saved = getattr(asked, spec.name), getattr(checkpoint.config.model, spec.name)
        if wanted != saved:
            raise ConfigError(
                f"model.{spec.name} is {saved!r} in this checkpoint and cannot become {wanted!r}: "
                "train another with newllm phase1"
            )
