"""The whole analysis of a checkpoint, next to the same model with untrained blocks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from newllm_core.analysis.contexts import equal_probes
from newllm_core.analysis.criteria import verdicts
from newllm_core.analysis.examiner import SPLITS, Examiner
from newllm_core.analysis.health import health_of, training_of
from newllm_core.analysis.recurrence import ModelRecurrence
from newllm_core.analysis.token_text import TokenText
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config
from newllm_core.files.strict_json import finite
from newllm_core.plugins.missing import missing_plugins
from newllm_core.runtime.progress import Progress, Silent

SCHEMA = 1


def analyze(
    checkpoint: Checkpoint,
    *,
    checkpoint_path: Path | str,
    config: Config | None = None,
    seed: int | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
    with_control: bool = True,
) -> dict[str, Any]:
    """Return everything there is to say about a checkpoint, fit for JSON.

    Train and validation are cut to the same number of tokens.

    Args:
        checkpoint: the model, its probes and its history; the model is moved to `device`.
        checkpoint_path: named in the result.
        config: how much is looked at, and thresholds; as the checkpoint says, by default.
        seed: of everything that is sampled; that of the checkpoint, by default.
        device: where to compute; where the model is, by default.
        progress: told about every token that is read.
        with_control: whether the untrained blocks are looked at too.

    Returns:
        `schema`, `checkpoint`, `missing_plugins`, `train`, `validation`, `random_control`,
        `differences` and `verdicts`, all measured now; `convergence`, which Phase 1 wrote down when
        it trained, and `epochs`, what Phase 2 did; `training`: whether blocks were trained. A split
        of the random control is None if its contexts are not finite, or nobody asked for it; so is
        any number that is not finite.

    Raises:
        DivergedError: contexts of the trained model are not finite.
        InputError: the probes are too short.
    """
    progress = progress or Silent()
    model = checkpoint.model
    if device is not None:
        model.to(device)
    probes = equal_probes({split: checkpoint.probes[split] for split in SPLITS}, checkpoint.warmup)
    saved = checkpoint.config
    seed = saved.run.seed if seed is None else seed
    config = config or saved
    config = replace(config, phase1=saved.phase1, run=replace(config.run, seed=seed))
    text = TokenText(checkpoint.tokenizer_json)
    examiner = Examiner(config, warmup=checkpoint.warmup, text=text)
    control = ModelRecurrence(model.untrained()) if with_control else None
    found = examiner.report(ModelRecurrence(model), control, probes, progress)
    missing = missing_plugins(checkpoint.provenance)
    for line in missing:
        progress.warning(line)
    training = training_of(checkpoint)
    health = {split: health_of(found[split]) for split in SPLITS}
    report = {
        "schema": SCHEMA,
        "checkpoint": str(checkpoint_path),
        "phase": checkpoint.phase,
        "missing_plugins": missing,
        "training": training,
        "convergence": {"history": checkpoint.history, "vacuous_terms": checkpoint.vacuous_terms},
        "epochs": checkpoint.results.get("epochs", []),
        **found,
        "verdicts": verdicts(health, training, config),
    }
    return finite(report)
