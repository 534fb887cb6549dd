"""Every figure of a model's contexts on probe passages, one split beside the other."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from newllm_core.analysis.contexts import ProbeContexts
from newllm_core.analysis.dynamics import dynamics, exponent_of, tokens_to_read
from newllm_core.analysis.identity import identity_cosine
from newllm_core.analysis.rank import effective_rank
from newllm_core.analysis.rows import Rows
from newllm_core.analysis.sections import matrix_sections
from newllm_core.analysis.singular_vectors import token_loadings
from newllm_core.analysis.token_dependency import token_dependency
from newllm_core.analysis.token_memory import label, token_memory
from newllm_core.analysis.token_text import TokenText
from newllm_core.config import Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Task

Splits = dict[str, dict[str, Any]]


class Examiner:
    """What is the same for every split and model.

    Args:
        config: uses `analysis`, `phase1` (what counts as converged) and `run` (seed of samples).
        warmup: tokens of a passage that are read before it counts.
        text: shows tokens; without it nobody asks which tokens load on singular vectors.
    """

    def __init__(self, config: Config, *, warmup: int, text: TokenText | None = None) -> None:
        self.config = config.analysis
        self.converged_below = config.phase1.convergence_threshold
        self.seed = config.run.seed
        self.warmup = warmup
        self.text = text

    def tokens_to_read(self, probes: Mapping[str, Tensor]) -> int:
        """Count what one model reads of all splits."""
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
        moving = dynamics(
            model,
            read,
            self.config,
            converged_below=self.converged_below,
            seed=self.seed,
            task=task,
        )
        return {
            split: self._split(model, of_split) | moving[split] | self.memory(of_split)
            for split, of_split in read.items()
        }

    def remembered(self, model: LanguageModel, read: ProbeContexts) -> dict[str, float]:
        """Return the three figures that say what became of a memory, without the rest.

        These are `effective_rank_ratio`, `lyapunov_exponent` and `tokens_remembered`, the same as
        among all figures.
        """
        return {
            "effective_rank_ratio": effective_rank(read.contexts) / model.context_dim,
            "lyapunov_exponent": exponent_of(model, read, self.config, seed=self.seed),
            "tokens_remembered": self.memory(read)["token_memory"]["total"],
        }

    def memory(self, read: ProbeContexts) -> dict[str, Any]:
        """Return how many tokens back can be read from the contexts."""
        counted = read.trajectory[:, -read.tokens.shape[1] :]
        labelled = label(
            counted, read.passages, lags=self.config.memory_lags, frequent=self.config.memory_tokens
        )
        return {"token_memory": token_memory(labelled)}

    def _split(self, model: LanguageModel, read: ProbeContexts) -> dict[str, Any]:
        contexts, config = read.contexts, self.config
        rows = Rows.of(contexts)
        figures, spectrum = matrix_sections(
            rows,
            num_pairs=config.num_pairs,
            num_vectors=config.num_singular_vectors,
            seed=self.seed,
        )
        found = {
            "num_tokens": len(contexts),
            "context_dim": contexts.shape[1],
            **figures,
            "identity_cosine": identity_cosine(read.trajectory),
            "token_dependency": token_dependency(
                model, contexts, read.tokens, config, seed=self.seed
            ),
        }
        if self.text is not None:
            found["singular_vectors"] = self._singular_vectors(
                self.text, read, rows, spectrum.right_vectors, figures["top_singular_values"]
            )
        return found

    def _singular_vectors(
        self,
        text: TokenText,
        read: ProbeContexts,
        rows: Rows,
        vectors_DK: Tensor,
        values: list[float],
    ) -> list[dict[str, Any]]:
        loadings = token_loadings(
            rows,
            vectors_DK,
            read.tokens.reshape(-1),
            num_tokens=self.config.tokens_per_singular_vector,
        )
        return [
            {
                "singular_value": value,
                "tokens": [
                    {"id": token, "text": text(token), "loading": loading}
                    for token, loading in tokens
                ],
            }
            for value, tokens in zip(values, loadings, strict=True)
        ]
