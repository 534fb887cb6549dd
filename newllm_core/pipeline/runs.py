"""Training as functions: from a dataset to a checkpoint, from a checkpoint to the next."""

from dataclasses import asdict, replace
from typing import Any

import torch

from newllm_core.analysis.criteria import CRITERIA
from newllm_core.analysis.health import measure_health, training_of
from newllm_core.analysis.quality_gate import check_gate
from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.checkpoint.metadata import SPLITS
from newllm_core.checkpoint.provenance import plugins_of_phase1, provenance, with_phase2
from newllm_core.checkpoint.run_state import identity_of
from newllm_core.config import Config
from newllm_core.config.data import DataConfig
from newllm_core.data.prepared import PreparedDataset
from newllm_core.data.probe import choose_probes
from newllm_core.kernels.door import describe
from newllm_core.model.count_memory import count_memory
from newllm_core.model.counting import count_embeddings
from newllm_core.model.embeddings import load_embeddings
from newllm_core.model.language_model import LanguageModel
from newllm_core.parallel import collectives
from newllm_core.parallel.sharding import sharded
from newllm_core.plugins.registry import CELLS, REGULARIZERS
from newllm_core.regularizers.make import make_regularizers
from newllm_core.runtime.precision import products_in
from newllm_core.runtime.progress import Progress
from newllm_core.settings import make_section
from newllm_core.training.phase1.loss import (
    REGULARIZER,
    Phase1Loss,
    num_regularizers,
    regularizer_weight,
)
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.extra_terms import make_objective
from newllm_core.training.phase2.run import require_possible, train_phase2
from newllm_core.training.phase2.terms import terms_of
from newllm_core.training.resume import Output, begin, finished, writing

# What a run depends on, and must be the same to resume it.
PHASE1_SECTIONS = ("run", "model", "phase1", "cell", "objective", "regularizer", "analysis")
PHASE2_SECTIONS = ("run", "model", "cell", "phase2", "objective", "regularizer", "gate", "analysis")


@torch.inference_mode(False)  # which the caller may be in: gradients are needed
def run_phase1(
    config: Config, dataset: PreparedDataset, output: Output, *, device: torch.device
) -> Checkpoint:
    """Train the blocks of a new model and save it as `output` says.

    Raises:
        InputError: the checkpoint exists or somebody else is writing it, or embeddings cannot be
            used.
        ConfigError: an unknown regularizer or option, or other settings than those to resume.
        PluginError: the regularizer is broken.
        DivergedError: a loss or gradient is not finite; the state before is saved.
        Interrupted: the run was asked to stop; its state is saved.
    """
    progress = output.progress
    with writing(output):
        model = LanguageModel(
            config.model, dataset.info.vocab_size, cell=config.cell, seed=config.run.seed
        )
        objective, of_objective = make_objective(config.phase1.objective, config, model)
        regularizers, of_regularizer, remark = make_regularizers(
            config.phase1.reg,
            config.regularizer,
            model.context_dim,
            count=num_regularizers(model, config.phase1),
            seed=model.seed,
        )
        if remark:
            progress.warning(remark)
        weight = regularizer_weight(regularizers, config.phase1)
        config = replace(
            config,
            data=_prepared_with(dataset),
            cell=model.cell_options,
            objective=of_objective,
            regularizer=of_regularizer,
            phase1=replace(config.phase1, dist_reg_weight=weight),
        )
        if config.model.embeddings_file is not None:
            added = dataset.info.vocab_size - dataset.info.base_vocab_size
            spec = config.model.embeddings_file
            progress.message(load_embeddings(model, spec, added_tokens=added))
        identity = identity_of(
            config, PHASE1_SECTIONS, dataset.hash, model, plugins_of_phase1(config)
        )
        if (done := finished(output, identity)) is not None:
            return done
        # Counts follow from settings and data, which the identity has already.
        beginning = dataset.train.tokens[: config.model.counted_tokens]
        if config.model.embeddings == "counts":
            table_VE = model.embedding.weight
            count_embeddings(table_VE, beginning, seed=model.seed, progress=progress)
        count_memory(model, beginning, progress=progress)
        tokens = {"train": dataset.train.tokens, "validation": dataset.validation.tokens}
        progress.message(describe(setting=config.run.kernels, device=device))
        with begin(output, identity, config.run) as saver:
            trained_on = tokens["train"][: config.phase1.max_tokens]
            probes, warmup = choose_probes(tokens | {"train": trained_on}, config.analysis)
            with sharded(model, config.run, device) as trained:
                with products_in(trained, config.run, device):
                    loss = Phase1Loss(trained, objective, regularizers, config.phase1).to(device)
                    end_id = int(dataset.info.end_id)
                    trainer = Phase1Trainer(loss, tokens, config, end_id=end_id, saver=saver)
                    trainer.run()
                try:
                    with saver.immediately():
                        gate = measure_health(trained, probes, warmup, config, progress=progress)
                except KeyboardInterrupt:
                    saver.stop(trainer.state)
            _warn_of_vacuous(trainer, config, progress)
            checkpoint = Checkpoint(
                model=model,
                objective={n: t.detach().cpu() for n, t in objective.state_dict().items()},
                config=config,
                tokenizer_json=dataset.tokenizer_json,
                phase="phase1",
                probes=probes,
                warmup=warmup,
                history=trainer.history,
                vacuous_terms=trainer.guard.vacuous_terms(),
                gate=gate,
                provenance=provenance(config, dataset) | {"identity": identity},
            )
            _save(checkpoint, output)
    return checkpoint


def _warn_of_vacuous(trainer: Phase1Trainer, config: Config, progress: Progress) -> None:
    plugin = REGULARIZERS.find(config.phase1.reg)
    for term in trainer.guard.vacuous_terms():
        whose = (
            "" if plugin.is_own or term != REGULARIZER else f" ({REGULARIZERS.describe(plugin)})"
        )
        progress.warning(f"vacuous term: {term} never had a gradient; it trained nothing{whose}")
    if trainer.history and trainer.history[-1]["weight_change"] == 0:
        why = "no weight moved from its initial value"
        if config.phase1.max_iterations == 1:
            why += "; the first reading only makes contexts, so --max-iterations 2 is the least"
        progress.warning(f"nothing was trained: {why}")


@torch.inference_mode(False)
def run_phase2(
    checkpoint: Checkpoint,
    dataset: PreparedDataset,
    config: Config,
    output: Output,
    *,
    device: torch.device,
) -> Checkpoint:
    """Pass the gate, train the heads (and blocks), and save them as `output` says.

    Raises:
        GateRefused: Phase 1 left contexts that are degenerate; nothing is written.
        InputError: as `run_phase1`, or the dataset is not the checkpoint's.
        ConfigError, DivergedError, Interrupted: as `run_phase1`.
    """
    with writing(output):
        cell = CELLS.find(config.model.cell)
        terms = [
            (
                term.registry.find(term.name),
                asdict(term.registry.options(term.name, term.options())),
            )
            for term in terms_of(config)
            if term.is_wanted
        ]
        plugins = [cell, *(plugin for plugin, _ in terms)]
        identity = identity_of(config, PHASE2_SECTIONS, dataset.hash, checkpoint.model, plugins)
        if (done := finished(output, identity)) is not None:
            return done
        require_possible(checkpoint, dataset, config)
        gate = _pass_gate(checkpoint, config, output.progress)
        checkpoint = replace(
            checkpoint,
            gate=gate,
            config=replace(checkpoint.config, data=_prepared_with(dataset)),
            provenance=with_phase2(
                checkpoint.provenance,
                dataset,
                cell=None if config.phase2.freeze_context else cell,
                terms=terms,
            )
            | {"identity": identity},
        )
        output.progress.message(describe(setting=config.run.kernels, device=device))
        with begin(output, identity, config.run) as saver:
            with products_in(checkpoint.model, config.run, device):
                trained = train_phase2(checkpoint, dataset, config, device=device, saver=saver)
            trained.model.product_dtype = None  # a copy, made while the precision was set
            if not config.phase2.freeze_context:  # these are of the blocks before
                kept = {name: told for name, told in gate.items() if name not in SPLITS}
                trained = replace(trained, gate=kept)
            _save(trained, output)
    return trained


def _prepared_with(dataset: PreparedDataset) -> DataConfig:
    """Return the settings that the data was made with, whatever is asked for now."""
    known = dataset.info.data
    names = DataConfig.__dataclass_fields__.keys() & known.keys()
    return make_section(DataConfig, "data", {name: known[name] for name in names})


def _save(checkpoint: Checkpoint, output: Output) -> None:
    if collectives.rank() == 0:
        overwrite = output.overwrite or output.resume
        checkpoints.save(checkpoint, output.checkpoint, overwrite=overwrite)


def _pass_gate(checkpoint: Checkpoint, config: Config, progress: Progress) -> dict[str, Any]:
    """Judge the contexts that heads are to be trained on; what the new checkpoint says of them."""
    training = training_of(checkpoint)
    # Phase 1 measures its blocks; those that Phase 2 has changed since are measured now, and what
    # an older version did not measure.
    health = {split: found for split, found in checkpoint.gate.items() if split in SPLITS}
    judged = {criterion.figure for criterion in CRITERIA.values()}
    if not all(judged <= health.get(split, {}).keys() for split in SPLITS):
        health = measure_health(
            checkpoint.model, checkpoint.probes, checkpoint.warmup, config, progress=progress
        )
    check_gate(health, training, config)
    untrained = training["untrained_blocks"] or training["weight_change"] == 0
    thresholds = asdict(config.gate)
    return {**health, "thresholds": thresholds, "untrained_blocks": untrained}
