"""Checkpoints side by side: what differs in their configs, their health and their figures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from newllm_core import settings
from newllm_core.analysis.analyze import analyze
from newllm_core.checkpoint import Checkpoint, load
from newllm_core.config import AnalysisConfig, Config
from newllm_core.errors import DivergedError
from newllm_core.progress import Progress, Silent
from newllm_core.strict_json import finite

SCHEMA = 1
# Where a run computed says nothing about what came out.
NOT_COMPARED = ("run.device", "run.threads")
LANGUAGE_MODEL_FIGURES = ("loss", "perplexity", "accuracy", "bits_per_byte", "word_perplexity")
SPLITS = ("train", "validation")
# Sections that mean nothing before Phase 2.
LATER_SECTIONS = ("phase2", "gate")


def compare(
    paths: Sequence[Path],
    *,
    config: AnalysisConfig | None = None,
    seed: int | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Analyse every checkpoint, without its random control, and put the results together.

    One model is in memory at a time.

    Args:
        paths: the checkpoints.
        config: how much is looked at; as each checkpoint says, by default.
        seed: of everything that is sampled; each checkpoint's own, by default.
        device: where to compute.
        progress: told about every token that is read.

    Returns:
        `schema`; `checkpoints`: for each `name`, `checkpoint` (its path), `phase`, `parameters`,
        the `train` and `validation` figures and `verdicts` of `analyze` (None with an `error` where
        contexts are not finite), and under `language_model` what its heads reach on each split
        (None before Phase 2); `config_differences`: for every setting that is not the same in all,
        a list of its values.

    Raises:
        InputError: a checkpoint cannot be read.
    """
    progress = progress or Silent()
    names = short_names(paths)
    entries, configs = [], []
    for number, (path, name) in enumerate(zip(paths, names, strict=True), 1):
        progress.message(f"[{number}/{len(paths)}] {name}")
        checkpoint = load(path, device=device, progress=progress)
        configs.append((checkpoint.phase, checkpoint.config))
        entry = {
            "name": name,
            "checkpoint": str(path),
            "phase": checkpoint.phase,
            "parameters": sum(p.numel() for p in checkpoint.model.parameters()),
            **dict.fromkeys((*SPLITS, "verdicts", "error")),
        }
        try:
            report = analyze(
                checkpoint,
                checkpoint_path=path,
                config=config,
                seed=seed,
                progress=progress,
                with_control=False,
            )
            entry |= {key: report[key] for key in (*SPLITS, "verdicts")}
        except DivergedError as error:
            entry["error"] = str(error)
            progress.warning(f"{name}: {error}")
        entries.append(entry | {"language_model": _language_model(checkpoint)})
    return finite(
        {
            "schema": SCHEMA,
            "checkpoints": entries,
            "config_differences": config_differences(configs),
        }
    )


def config_differences(checkpoints: Sequence[tuple[str, Config]]) -> dict[str, list[Any]]:
    """Settings that are not the same in all checkpoints.

    Args:
        checkpoints: phase and config of each.

    Returns:
        `section.key` to a value of each. Settings of Phase 2 are compared among the checkpoints
        that went through it; they are None for the others.
    """
    flat = [_flat(phase, config) for phase, config in checkpoints]
    keys = dict.fromkeys(key for of_config in flat for key in of_config)
    found = {}
    for key in keys:
        present = [of_config[key] for of_config in flat if key in of_config]
        if key not in NOT_COMPARED and any(value != present[0] for value in present):
            found[key] = [of_config.get(key) for of_config in flat]
    return found


def _flat(phase: str, config: Config) -> dict[str, Any]:
    return {
        f"{name}.{key}": value
        for name, section in settings.to_dict(config).items()
        if phase != "phase1" or name not in LATER_SECTIONS
        for key, value in section.items()
    }


def short_names(paths: Sequence[Path]) -> list[str]:
    """File names without their ending, with as many folders as tell them apart."""
    depth = 1
    while True:
        names = ["/".join(path.with_suffix("").parts[-depth:]) for path in paths]
        if len(set(names)) == len(set(paths)) or depth > max(len(p.parts) for p in paths):
            return names
        depth += 1


def _language_model(checkpoint: Checkpoint) -> dict[str, Any] | None:
    results = checkpoint.results
    if not results:
        return None
    return {
        split: {figure: results[split].get(figure) for figure in LANGUAGE_MODEL_FIGURES}
        for split in SPLITS
    }
