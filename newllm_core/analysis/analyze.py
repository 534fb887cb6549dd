"""The whole analysis of a checkpoint, next to the same model with untrained blocks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import (
    ProbeContexts,
    equal_probes,
    exploded,
    read_splits,
    refuse_exploded,
)
from newllm_core.analysis.convergence import convergence
from newllm_core.analysis.differences import differences
from newllm_core.analysis.dynamics import dynamics, tokens_to_read
from newllm_core.analysis.identity import identity_cosine
from newllm_core.analysis.rows import Rows
from newllm_core.analysis.sections import matrix_sections
from newllm_core.analysis.singular_vectors import token_loadings
from newllm_core.analysis.threads import worthwhile_threads
from newllm_core.analysis.token_dependency import token_dependency
from newllm_core.analysis.token_memory import label, token_memory
from newllm_core.analysis.token_text import TokenText
from newllm_core.analysis.verdicts import verdicts
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import AnalysisConfig
from newllm_core.files.strict_json import finite
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.missing import missing_plugins
from newllm_core.runtime.progress import Progress, Silent, Task

SCHEMA = 1
SPLITS = ("train", "validation")
TOKENS_PER_VECTOR = 6

Splits = dict[str, dict[str, Any]]


def analyze(
    checkpoint: Checkpoint,
    *,
    checkpoint_path: Path | str,
    config: AnalysisConfig | None = None,
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
        config: how much is looked at; as the checkpoint says, by default.
        seed: of everything that is sampled; that of the checkpoint, by default.
        device: where to compute; where the model is, by default.
        progress: told about every token that is read.
        with_control: whether the untrained blocks are looked at too.

    Returns:
        `schema`, `checkpoint`, `missing_plugins`, `convergence`, `train`, `validation`,
        `random_control`, `differences` and `verdicts`. A split of the random control is None if its
        contexts are not finite, or nobody asked for it; so is any number that is not finite.

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
    examiner = _Examiner(checkpoint, config, seed)
    to_read = (1 + with_control) * examiner.tokens_to_read(probes)
    blocks = "trained blocks and random control" if with_control else "trained blocks"
    progress.message(f"analysing {to_read:,} tokens: train and validation, {blocks}")
    control: Splits = {}
    rows = sum(len(passages) for passages in probes.values())
    with (
        worthwhile_threads(model, rows),
        progress.task("reading probes", to_read, "tokens") as task,
    ):
        read = read_splits(model, probes, checkpoint.warmup, task=task)
        refuse_exploded(read)
        trained = examiner.figures(model, read, task)
        if with_control:
            untrained = model.untrained()
            read = read_splits(untrained, probes, checkpoint.warmup, task=task)
            for split in exploded(read):
                progress.warning(f"the random control explodes on {split}: it has no figures")
                del read[split]
            control = examiner.figures(untrained, read, task)
    history = convergence(checkpoint.history, checkpoint.vacuous_terms)
    missing = missing_plugins(checkpoint.provenance)
    for line in missing:
        progress.warning(line)
    report = {
        "schema": SCHEMA,
        "checkpoint": str(checkpoint_path),
        "missing_plugins": missing,
        "convergence": history,
        **trained,
        "random_control": {split: control.get(split) for split in SPLITS},
        "differences": differences(trained, control),
        "verdicts": verdicts(trained, history),
    }
    return finite(report)


class _Examiner:
    """What is the same for every split and model."""

    def __init__(
        self, checkpoint: Checkpoint, config: AnalysisConfig | None, seed: int | None
    ) -> None:
        self.config = config or checkpoint.config.analysis
        self.seed = checkpoint.config.run.seed if seed is None else seed
        self.warmup = checkpoint.warmup
        self.text = TokenText(checkpoint.tokenizer_json)

    def tokens_to_read(self, probes: Mapping[str, Tensor]) -> int:
        """By one model, of all splits."""
        return sum(
            passages.numel() + tokens_to_read(passages, self.warmup, self.config)
            for passages in probes.values()
        )

    def figures(
        self, model: LanguageModel, read: Mapping[str, ProbeContexts], task: Task
    ) -> Splits:
        """Return every figure of every split that was read."""
        if not read:
            return {}
        moving = dynamics(model, read, self.config, seed=self.seed, task=task)
        return {
            split: self._split(model, of_split) | moving[split] | self._memory(of_split)
            for split, of_split in read.items()
        }

    def _split(self, model: LanguageModel, read: ProbeContexts) -> dict[str, Any]:
        contexts = read.contexts
        rows = Rows.of(contexts)
        figures, spectrum = matrix_sections(
            rows,
            num_pairs=self.config.num_pairs,
            num_vectors=self.config.num_singular_vectors,
            seed=self.seed,
        )
        return {
            "num_tokens": len(contexts),
            "context_dim": contexts.shape[1],
            **figures,
            "identity_cosine": identity_cosine(read.trajectory),
            "token_dependency": token_dependency(model, contexts, read.tokens, seed=self.seed),
            "singular_vectors": self._singular_vectors(
                read, rows, spectrum.right_vectors, figures["top_singular_values"]
            ),
        }

    def _memory(self, read: ProbeContexts) -> dict[str, Any]:
        counted = read.trajectory[:, -read.tokens.shape[1] :]
        labelled = label(counted, read.passages, lags=self.config.memory_lags)
        return {"token_memory": token_memory(labelled)}

    def _singular_vectors(
        self, read: ProbeContexts, rows: Rows, vectors_DK: Tensor, values: list[float]
    ) -> list[dict[str, Any]]:
        loadings = token_loadings(
            rows, vectors_DK, read.tokens.reshape(-1), num_tokens=TOKENS_PER_VECTOR
        )
        return [
            {
                "singular_value": value,
                "tokens": [
                    {"id": token, "text": self.text(token), "loading": loading}
                    for token, loading in tokens
                ],
            }
            for value, tokens in zip(values, loadings, strict=True)
        ]
