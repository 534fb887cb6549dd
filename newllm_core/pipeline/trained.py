"""What is done with a checkpoint besides training it: more heads, figures of a text."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch

from newllm_core import settings
from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.checkpoint.kept import OF_PROBES, require_kept, require_probes
from newllm_core.config import Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.data.sources.decoding import UTF8
from newllm_core.data.text_stream import count_line_ends
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import ConfigError, InputError
from newllm_core.evaluation.splits import evaluate, evaluate_splits, without_line_ends
from newllm_core.evaluation.texts import evaluate_text
from newllm_core.files.lock import exclusive
from newllm_core.model.heads import head_weights
from newllm_core.plugins.registry import CELLS
from newllm_core.runtime.precision import products_in
from newllm_core.runtime.progress import Progress
from newllm_core.settings import Layer, Settings
from newllm_core.training.phase2.terms import terms_of
from newllm_core.training.resume import Output

# A checkpoint decides these; phase 2 and analysis read them from it.
CHECKPOINT_SECTIONS = ("data", "model", "phase1", "cell", "objective", "regularizer", "source")


def expand(checkpoint: Checkpoint) -> Checkpoint:
    """Clone the head, so that every block has one; the last head's logits stay the same.

    The given checkpoint stays as it is, and nobody has evaluated the heads of the new one. After
    Phase 1 no head is trained, and the checkpoint still is one of Phase 1. `InputError` if every
    block has a head already.
    """
    num_heads, num_blocks = checkpoint.model.num_heads, checkpoint.model.config.num_blocks
    if num_heads >= num_blocks:
        raise InputError(
            f"this checkpoint already has {num_heads} head(s), one for each of its {num_blocks} "
            "block(s): there is nothing to expand"
        )
    model = copy.deepcopy(checkpoint.model)
    model.expand_heads()
    phase = "phase1" if checkpoint.phase == "phase1" else "expand"
    return dataclasses.replace(checkpoint, model=model, phase=phase, results={})


@torch.inference_mode(False)  # which the caller may be in: the heads may be trained on
def run_expand(
    checkpoint: Checkpoint, dataset: PreparedDataset, config: Config, output: Output
) -> Checkpoint:
    """Clone the head to every block, evaluate each if it was trained, save as `output` says."""
    progress = output.progress
    checkpoint.require_tokenizer(dataset.tokenizer_json)
    expanded = expand(checkpoint)
    with exclusive(output.checkpoint):
        if checkpoint.phase == "phase1":
            progress.message(
                f"{expanded.model.num_heads} heads, none of them trained: newllm phase2"
            )
        else:
            weights = head_weights(checkpoint.config.phase2.head_weights, expanded.model.num_heads)
            with products_in(expanded.model, config.run, expanded.model.device):
                expanded.results = evaluate_splits(
                    expanded.model, dataset, head_weights=weights, progress=progress
                )
        checkpoints.save(expanded, output.checkpoint, overwrite=output.overwrite)
    return expanded


def run_evaluate(
    checkpoint: Checkpoint,
    target: PreparedDataset | Path | str,
    config: Config,
    *,
    progress: Progress,
    split: str | None = None,
    encoding: str = UTF8,
) -> dict[str, dict[str, Any]]:
    """Return figures of every head on a data set ("train", "validation"), or on a text ("text").

    `target` is a data set, the path of a file of that `encoding`, or a text itself; `config` (see
    `evaluation_config`) has the precision and the weights of heads. With `split` only this one of a
    data set is read, and all of it: the way to see "test".

    Raises:
        InputError: the head was never trained, the data set has another tokenizer or no such
            split, or the text is empty or cannot be read.
    """
    checkpoint.require_trained_head()
    model = checkpoint.model
    weights = head_weights(config.phase2.head_weights, model.num_heads)
    tokenizer = TextTokenizer.from_json(checkpoint.tokenizer_json)
    with products_in(model, config.run, model.device):
        given: dict[str, Any] = {"head_weights": weights, "progress": progress}
        if isinstance(target, str | Path):
            given |= {"min_space_share": checkpoint.config.data.min_space_share}
            return {"text": evaluate_text(model, tokenizer, target, encoding=encoding, **given)}
        checkpoint.require_tokenizer(target.tokenizer_json)
        if split is None:
            found = evaluate_splits(model, target, **given)
        else:
            end_id = target.info.end_id
            found = {split: evaluate(model, target.split(split), end_id=end_id, **given)}
    for name in found:
        whole = found[name]["num_words"] is not None
        line_ends = count_line_ends(tokenizer, target.split(name).tokens) if whole else None
        found[name] = without_line_ends(found[name], line_ends)
    return found


def evaluation_config(given: Settings, checkpoint: Checkpoint) -> Config:
    """Resolve settings for `run_evaluate`: the heads count together as they did in training."""
    return given.resolve({"phase2": settings.to_dict(checkpoint.config)["phase2"]})


def phase2_config(given: Settings, checkpoint: Checkpoint) -> Config:
    """Resolve settings for `run_phase2`; `ConfigError` if they ask for another model."""
    saved = settings.to_dict(checkpoint.config)
    base = {name: saved[name] for name in CHECKPOINT_SECTIONS}
    config = settings.resolve(base, *(_of_phase2(layer, checkpoint) for layer in given.layers))
    probes = {key: saved["analysis"][key] for key in OF_PROBES}
    config = dataclasses.replace(
        config,
        phase1=checkpoint.config.phase1,
        analysis=dataclasses.replace(config.analysis, **probes),
    )
    _refuse_change("model", config.model, checkpoint.config.model)
    cell = config.model.cell
    asked = CELLS.options(cell, config.cell, given)
    _refuse_change("cell", asked, CELLS.options(cell, checkpoint.model.cell_options))
    idle = [term.registry.section for term in terms_of(config) if not term.is_wanted]
    require_kept(given, checkpoint.config, ["phase1", *idle])
    require_probes(given, checkpoint.config)
    return dataclasses.replace(config, cell=checkpoint.model.cell_options)


def _of_phase2(layer: Layer, checkpoint: Checkpoint) -> Layer:
    """Let options of `layer` count for plugins that Phase 2 trains, not for those of Phase 1."""
    of_phase1, asked = checkpoint.config.phase1, layer.get("phase2", {})
    named = {
        key: asked[key] or getattr(of_phase1, key) for key in ("objective", "reg") if key in asked
    }
    return {**layer, "phase1": named}


def _refuse_change(section: str, asked: Any, saved: Any) -> None:  # noqa: ANN401 - dataclasses
    for spec in dataclasses.fields(asked):
        wanted, had = getattr(asked, spec.name), getattr(saved, spec.name)
        if wanted != had:
            kept = ",".join(map(str, had)) if isinstance(had, tuple) else had
            raise ConfigError(
                f"{section}.{spec.name} is {had!r} in this checkpoint and cannot become "
                f"{wanted!r}: train another with newllm phase1, or keep it in spite of a "
                f"preset with --set {section}.{spec.name}={kept}"
            )
