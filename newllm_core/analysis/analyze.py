"""The whole analysis: of a checkpoint, or of any recurrent network from its step alone."""

import json
import operator
from collections.abc import Callable
from dataclasses import replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from newllm_core.analysis.contexts import equal_probes
from newllm_core.analysis.criteria import verdicts
from newllm_core.analysis.examiner import Examiner
from newllm_core.analysis.health import health_of, training_of
from newllm_core.analysis.recurrence import ModelRecurrence
from newllm_core.analysis.stepped import Step, Stepped
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.checkpoint.metadata import SPLITS
from newllm_core.config import AnalysisConfig, Config
from newllm_core.config.values import shown
from newllm_core.data.control_tokens import HIDDEN
from newllm_core.data.probe import choose_probes
from newllm_core.data.tokenizer_library import load_tokenizer, panics_contained
from newllm_core.errors import ConfigError, InputError, reason
from newllm_core.files.strict_json import finite
from newllm_core.plugins.missing import missing_plugins
from newllm_core.runtime.device import keep_freed_memory
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.settings import Settings

SCHEMA = 1
STEP = "step"
# Numbers of the states of all rows that read side by side: longer states get fewer passages.
NUMBERS_AT_ONCE = 2**21
FEWEST = 2
# Up to here everything there is to read is cheap.
FEW_DIMENSIONS = 64

Text = Tensor | np.ndarray
Tokens = Text | tuple[Text, Text]


@torch.inference_mode(False)  # which the caller may be in: gradients are needed
def analyze(
    checkpoint: Checkpoint,
    *,
    checkpoint_path: Path | str,
    given: Settings | None = None,
    progress: Progress | None = None,
    with_control: bool = True,
) -> dict[str, Any]:
    """Return everything there is to say about a checkpoint, fit for JSON.

    How much is looked at and thresholds are what is `given`, or the checkpoint's own without it; so
    is the seed, unless it is given. Untrained blocks are looked at `with_control`.

    Returns:
        `train`, `validation`, `random_control`, `differences` and `verdicts`, all measured now;
        `convergence` and `epochs`, which Phase 1 and Phase 2 wrote down; `training`, see
        `training_of`. A split of the random control is None if its contexts are not finite, or
        nobody asked for it; so is any number that is not finite.

    Raises:
        DivergedError: contexts of the trained model are not finite.
        InputError: the probes are too short.
    """
    progress = progress or Silent()
    model = checkpoint.model
    probes = equal_probes({split: checkpoint.probes[split] for split in SPLITS}, checkpoint.warmup)
    saved = checkpoint.config
    config = given.resolve({"run": {"seed": saved.run.seed}}) if given else saved
    config = replace(config, phase1=saved.phase1)
    text = token_text(checkpoint.tokenizer_json)
    examiner = Examiner(config, warmup=checkpoint.warmup, text=text)
    control = ModelRecurrence(model.untrained()) if with_control else None
    found = examiner.report(ModelRecurrence(model), control, probes, progress)
    missing = missing_plugins(checkpoint.provenance)
    for line in missing:
        progress.warning(line)
    training = training_of(checkpoint)
    report = {
        "schema": SCHEMA,
        "checkpoint": str(checkpoint_path),
        "phase": checkpoint.phase,
        "missing_plugins": missing,
        "training": training,
        "convergence": {"history": checkpoint.history, "vacuous_terms": checkpoint.vacuous_terms},
        "epochs": checkpoint.results.get("epochs", []),
        **found,
        "verdicts": _judged(found, training, config),
    }
    return finite(report)


@torch.inference_mode(False)
def examine(
    step: Step,
    tokens: Tokens,
    *,
    start: Any,  # noqa: ANN401 - a nest of tensors
    control: Step | None = None,
    warmup: int | None = None,
    values: Tensor | np.ndarray | None = None,
    text: Callable[[int], str] | None = None,
    config: Config | None = None,
    seed: int = 0,
    name: str = STEP,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return what `analyze` says of a checkpoint, of any recurrent network.

    Of a long text evenly spaced passages are read, as many as a checkpoint keeps. Each begins with
    `start`, or, where all tokens are one, with what becomes of it after a while. States of more
    than 4,096 numbers are kept as sketches. Derivatives are needed, so that inference mode is left:
    a buffer that `step` writes to must be made outside of it.

    Args:
        step: `step(state, token_ids) -> state`, on states of batch B and ids [B]; called only with
            ids that occur in `tokens`. Where it cannot be differentiated, differences are taken.
        tokens: ids [T], or passages [P, T]; or a pair, training and validation.
        start: the state before any token, batch one: a tensor or a nest (tuple, list, dictionary,
            dataclass) of them, whose device and precision everything is computed in.
        control: the step of the same network untrained, to compare with.
        warmup: tokens of a passage that are read before it counts; chosen from the length.
        values: numbers that ids stand for [V] or [V, F], for memory capacity.
        text: shows a token; #id without it.
        config: how much is looked at, and thresholds.
        seed: of everything that is sampled.
        name: of the network, in the report.
        progress: told about every token that is read.

    Returns:
        The report of `analyze --json` without what needs a checkpoint. Without validation text
        `validation` is None.

    Raises:
        ConfigError: `start` is no state, or `values` do not fit.
        PluginError: what `step` returns is no state like `start`.
        DivergedError: a state is not finite.
        InputError: the text is too short, or holds anything but token ids.
    """
    where = "" if name == STEP else f"{name}: "
    seed = operator.index(seed)
    recurrence = Stepped(step, start, seed=seed, name=f"{where}step")
    if recurrence.is_projected:  # pages of long states would be cleared anew in every step
        keep_freed_memory()
    config = config or Config()
    config = replace(
        config,
        run=replace(config.run, seed=seed),
        analysis=_affordable(config.analysis, recurrence.context_dim),
    )
    probes, warmup = _passages(tokens, warmup, config.analysis)
    if values is not None:
        values = _values(values, max(int(ids.max()) for ids in probes.values()))
    shows = text or token_text("")
    examiner = Examiner(config, warmup=warmup, text=lambda id: str(shows(id)), values=values)
    beside = Stepped(control, start, seed=seed, name=f"{where}control") if control else None
    found = examiner.report(recurrence, beside, probes, progress or Silent())
    report = {"schema": SCHEMA, "checkpoint": name, "state": recurrence.described()}
    return finite(report | found | {"verdicts": _judged(found, None, config)})


def _values(given: Tensor | np.ndarray, highest: int) -> Tensor:
    try:
        values = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(
            f"values: expected numbers [V] or [V, F], found {shown(given)}"
        ) from error
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or len(values) <= highest or not values.numel():
        raise ConfigError(
            f"values has shape {list(values.shape)}, expected a row for every id up to {highest:,}"
        )
    if values.is_complex() or not values.isfinite().all():
        raise ConfigError("values: expected real numbers that are finite")
    return values


def _judged(
    found: dict[str, Any], training: dict[str, Any] | None, config: Config
) -> list[dict[str, Any]]:
    health = {split: health_of(found[split]) for split in SPLITS if found[split]}
    return verdicts(health, training, config)


def _affordable(config: AnalysisConfig, dimensions: int) -> AnalysisConfig:
    """Look at more of states of few numbers, at less of long ones."""
    rows = max(FEWEST, NUMBERS_AT_ONCE // dimensions)
    if dimensions <= FEW_DIMENSIONS:
        config = replace(
            config,
            dynamics_passages=max(config.dynamics_passages, config.probe_passages),
            dynamics_steps=max(config.dynamics_steps, config.probe_tokens // config.probe_passages),
        )
    return replace(
        config,
        dynamics_passages=min(config.dynamics_passages, rows),
        dependency_contexts=min(config.dependency_contexts, rows),
    )


def _passages(
    tokens: Tokens, warmup: int | None, config: AnalysisConfig
) -> tuple[dict[str, Tensor], int]:
    if warmup is not None and not (isinstance(warmup, Integral) and warmup >= 0):
        raise ConfigError(f"warmup is {shown(warmup)}: give a number of tokens from 0")
    pair = tokens if isinstance(tokens, tuple | list) else (tokens,)
    arrays = [np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x) for x in pair]
    splits = dict(zip(SPLITS, arrays, strict=False))
    fit = [x.size and x.ndim in (1, 2) and x.dtype.kind in "iu" for x in arrays]
    if len(pair) > len(SPLITS) or not all(fit):
        raise InputError(
            "tokens: give whole numbers [T] or [P, T], or a pair of them, training and validation"
        )
    if any(ids.ndim == 2 for ids in splits.values()):
        warmup = config.warmup_tokens if warmup is None else warmup
        probes = {s: torch.from_numpy(np.atleast_2d(x).astype(np.int64)) for s, x in splits.items()}
    else:
        if warmup is not None:
            config = replace(config, warmup_tokens=warmup)
        probes, warmup = choose_probes(splits, config)
    if (lowest := min(int(ids.min()) for ids in probes.values())) < 0:
        raise InputError(f"tokens: ids are never negative, found {lowest}")
    return equal_probes(probes, warmup), warmup


def token_text(tokenizer_json: str) -> Callable[[int], str]:
    """Return what shows single tokens of a tokenizer of the `tokenizers` library; "" for none."""
    tokenizer = None
    try:
        if tokenizer_json:
            tokenizer = load_tokenizer(json.loads(tokenizer_json), tokenizer_json)
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(f"the checkpoint's tokenizer cannot be read: {reason(error)}") from error

    def text_of(token: int) -> str:
        if tokenizer is None or (raw := tokenizer.id_to_token(token)) is None:
            return f"#{token}"
        with panics_contained():
            text = tokenizer.decode([token], skip_special_tokens=False)
        # A token may hold part of a character; a replacement sign would say nothing about it.
        return (text if text and "\ufffd" not in text else raw).removeprefix(HIDDEN)

    return text_of
