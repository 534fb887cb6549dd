"""The whole analysis of a checkpoint, next to the same model with untrained blocks."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from newllm_core.analysis.contexts import (
    equal_probes,
    exploded,
    read_finite,
    read_splits,
)
from newllm_core.analysis.convergence import convergence
from newllm_core.analysis.differences import differences
from newllm_core.analysis.examiner import Examiner, Splits
from newllm_core.analysis.health import health_of, training_of
from newllm_core.analysis.threads import worthwhile_threads
from newllm_core.analysis.token_text import TokenText
from newllm_core.analysis.verdicts import verdicts
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config
from newllm_core.files.strict_json import finite
from newllm_core.plugins.missing import missing_plugins
from newllm_core.runtime.progress import Progress, Silent

SCHEMA = 1
SPLITS = ("train", "validation")


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
    probes = {split: checkpoint.probes[split] for split in SPLITS}
    probes = equal_probes(probes, checkpoint.warmup)
    saved = checkpoint.config
    seed = saved.run.seed if seed is None else seed
    config = config or saved
    config = replace(config, phase1=saved.phase1, run=replace(config.run, seed=seed))
    text = TokenText(checkpoint.tokenizer_json)
    examiner = Examiner(config, warmup=checkpoint.warmup, text=text)
    to_read = (1 + with_control) * examiner.tokens_to_read(probes)
    blocks = "trained blocks and random control" if with_control else "trained blocks"
    progress.message(f"analysing {to_read:,} tokens: train and validation, {blocks}")
    control: Splits = {}
    rows = sum(len(passages) for passages in probes.values())
    with (
        worthwhile_threads(model, rows),
        progress.task("reading probes", to_read, "tokens") as task,
    ):
        read = read_finite(model, probes, checkpoint.warmup, task=task)
        trained = examiner.figures(model, read, task)
        if with_control:
            untrained = model.untrained()
            read = read_splits(untrained, probes, checkpoint.warmup, task=task)
            for split in exploded(read):
                progress.warning(f"the random control explodes on {split}: it has no figures")
                del read[split]
            control = examiner.figures(untrained, read, task)
    missing = missing_plugins(checkpoint.provenance)
    for line in missing:
        progress.warning(line)
    training = training_of(checkpoint)
    health = {split: health_of(figures) for split, figures in trained.items()}
    report = {
        "schema": SCHEMA,
        "checkpoint": str(checkpoint_path),
        "phase": checkpoint.phase,
        "missing_plugins": missing,
        "training": training,
        "convergence": convergence(checkpoint.history, checkpoint.vacuous_terms),
        "epochs": checkpoint.results.get("epochs", []),
        **trained,
        "random_control": {split: control.get(split) for split in SPLITS},
        "differences": differences(trained, control),
        "verdicts": verdicts(health, training, config),
    }
    return finite(report)
