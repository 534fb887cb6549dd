"""The whole analysis of a checkpoint, next to the same model with untrained blocks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import ProbeContexts, equal_probes, probe_contexts
from newllm_core.analysis.convergence import convergence
from newllm_core.analysis.identity import identity_cosine
from newllm_core.analysis.rows import Rows
from newllm_core.analysis.sections import matrix_sections
from newllm_core.analysis.singular_vectors import token_loadings
from newllm_core.analysis.token_dependency import token_dependency
from newllm_core.analysis.token_text import TokenText
from newllm_core.analysis.verdicts import verdicts
from newllm_core.checkpoint import Checkpoint
from newllm_core.config import AnalysisConfig
from newllm_core.errors import DivergedError
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.missing import missing_plugins
from newllm_core.progress import Progress, Silent, Task

SCHEMA = 1
SPLITS = ("train", "validation")
TOKENS_PER_VECTOR = 6


def analyze(
    checkpoint: Checkpoint,
    *,
    checkpoint_path: Path | str,
    config: AnalysisConfig | None = None,
    seed: int | None = None,
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Everything there is to say about a checkpoint, fit for JSON.

    Train and validation are cut to the same number of tokens.

    Args:
        checkpoint: the model, its probes and its history; the model is moved to `device`.
        checkpoint_path: named in the result.
        config: how many pairs and singular vectors; as the checkpoint says, by default.
        seed: of everything that is sampled; that of the checkpoint, by default.
        device: where to compute; where the model is, by default.
        progress: told about every token that is read.

    Returns:
        `schema`, `checkpoint`, `missing_plugins`, `convergence`, `train`, `validation`,
        `random_control` and `verdicts`. A split of the random control is None if its contexts are
        not finite.

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
    to_read = 2 * sum(tokens.numel() for tokens in probes.values())
    progress.message(
        f"analysing {to_read:,} tokens: train and validation, trained blocks and random control"
    )
    with progress.task("reading probes", to_read, "tokens") as task:
        trained = {split: examiner.split(model, split, probes[split], task) for split in SPLITS}
        random_control: dict[str, Any] = {}
        untrained = model.untrained()
        for split in SPLITS:
            try:
                random_control[split] = examiner.split(untrained, split, probes[split], task)
            except DivergedError:
                progress.warning(f"the random control explodes on {split}: it has no figures")
                random_control[split] = None
    history = convergence(checkpoint.history, checkpoint.vacuous_terms)
    missing = missing_plugins(checkpoint.provenance)
    for line in missing:
        progress.warning(line)
    return {
        "schema": SCHEMA,
        "checkpoint": str(checkpoint_path),
        "missing_plugins": missing,
        "convergence": history,
        **trained,
        "random_control": random_control,
        "verdicts": verdicts(trained, history),
    }


class _Examiner:
    """What is the same for every split and model."""

    def __init__(
        self, checkpoint: Checkpoint, config: AnalysisConfig | None, seed: int | None
    ) -> None:
        self.config = config or checkpoint.config.analysis
        self.seed = checkpoint.config.run.seed if seed is None else seed
        self.warmup = checkpoint.warmup
        self.text = TokenText(checkpoint.tokenizer_json)

    def split(
        self, model: LanguageModel, name: str, passages: Tensor, task: Task
    ) -> Mapping[str, Any]:
        """Every figure of one split."""
        read = probe_contexts(model, passages, self.warmup, split=name, task=task)
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
