"""Every figure of a recurrence's contexts on probe passages, one split beside the other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.contexts import (
    ProbeContexts,
    exploded,
    of_last_token,
    probe_places,
    read_splits,
    require_finite,
    sketched_sections,
)
from newllm_core.analysis.dynamics import dynamics, exponent_of, tokens_to_read
from newllm_core.analysis.lyapunov import extent, lyapunov_spectra
from newllm_core.analysis.rank import effective_rank, token_loadings
from newllm_core.analysis.recurrence import Recurrence, worthwhile_threads
from newllm_core.analysis.report.figures import differences
from newllm_core.analysis.sections import matrix_sections
from newllm_core.analysis.summary import identity_cosine
from newllm_core.analysis.token_dependency import contributions, token_dependency
from newllm_core.analysis.token_memory import Labelled, label, memory_capacity, token_memory
from newllm_core.checkpoint.metadata import SPLITS
from newllm_core.config import Config
from newllm_core.runtime.progress import Progress

Splits = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Examiner:
    """What is the same for every split and recurrence."""

    config: Config  # `analysis`, `phase1` (what counts as converged) and `run` (the seed) count
    warmup: int  # tokens of a passage that are read before it counts
    text: Callable[[int], str] | None = None  # without it only the figures of health are measured
    values: Tensor | None = None  # what every token id stands for [V, F], where inputs are numbers

    def report(
        self,
        recurrence: Recurrence,
        control: Recurrence | None,
        probes: Mapping[str, Tensor],
        progress: Progress,
    ) -> dict[str, Any]:
        """Return figures of a recurrence, its `random_control` and their `differences`.

        Raises:
            DivergedError: contexts of the recurrence are not finite.
        """
        total = tokens_to_read(probes, self.warmup, self.config.analysis)
        for passages in probes.values():
            shape = (len(passages), passages.shape[1] - max(1, self.warmup))
            count, steps, exponents = extent(recurrence.context_dim, shape, self.config.analysis)
            total += 4 * count * steps * exponents
        beside = ", and random control" if control else ""
        total *= 2 if control else 1
        progress.message(f"analysing {total:,} tokens: {' and '.join(probes)}{beside}")
        untrained: Splits = {}
        rows = sum(len(passages) for passages in probes.values())
        with (
            torch.no_grad(),
            worthwhile_threads(recurrence, rows),
            progress.task("reading probes", total, "tokens") as task,
        ):
            recurrence.task = task
            read = read_splits(recurrence, probes, self.warmup)
            found = self.figures(recurrence, require_finite(read, recurrence))
            if control is not None:
                control.task = task
                read = read_splits(control, probes, self.warmup)
                for split in exploded(read):
                    progress.warning(f"the random control explodes on {split}: it has no figures")
                    del read[split]
                untrained = self.figures(control, read)
        return {
            **{split: found.get(split) for split in SPLITS},
            "random_control": {split: untrained.get(split) for split in SPLITS},
            "differences": differences(found, untrained),
        }

    def figures(self, recurrence: Recurrence, read: Mapping[str, ProbeContexts]) -> Splits:
        """Return figures of every split that was read: with a `text` all, else those of health."""
        if not read:
            return {}
        below = self.config.phase1.convergence_threshold
        found = dynamics(recurrence, read, converged_below=below, **self._given)
        for split, of_split in read.items():
            memory = self._memory(recurrence, of_split)
            found[split] = self._split(recurrence, of_split) | found[split] | memory
        if self.text is None:
            return found
        spectra = lyapunov_spectra(recurrence, read, **self._given)
        for split, of_split in read.items():
            along = found[split]["along_text"]
            along["texts"] = [self.text(token) for token in along["tokens"]]
            found[split]["lyapunov_spectrum"] = spectra[split]
            found[split] |= self._more(recurrence, of_split)
        return found

    def remembered(self, recurrence: Recurrence, read: ProbeContexts) -> dict[str, float]:
        """Return the three figures that say what became of a memory, without the rest."""
        return {
            "effective_rank_ratio": effective_rank(read.contexts) / recurrence.context_dim,
            "lyapunov_exponent": exponent_of(recurrence, read, **self._given),
            "tokens_remembered": token_memory(self._labelled(read))["total"],
        }

    @property
    def _given(self) -> dict[str, Any]:
        """Return how much is looked at, and the seed of samples, as every section takes them."""
        return {"config": self.config.analysis, "seed": self.config.run.seed}

    def _labelled(self, read: ProbeContexts, frequent: int | None = None) -> Labelled:
        config = self.config.analysis
        counted = probe_places(read)[:, -read.tokens.shape[1] :]
        frequent = config.memory_tokens if frequent is None else frequent
        return label(counted, read.passages, lags=config.memory_lags, frequent=frequent)

    def _memory(self, recurrence: Recurrence, read: ProbeContexts) -> dict[str, Any]:
        """Return token memory, and what is `kept` of it beyond guesses from the last token.

        Where texts have a pattern, the last token says much about those before it. Contexts that
        have read nothing else show how much: `by_last_token`.
        """
        found = token_memory(self._labelled(read))
        guessed = token_memory(self._labelled(of_last_token(recurrence, read)))["by_lag"]
        pairs = zip(found["by_lag"][1:], guessed[1:], strict=True)
        kept = found["by_lag"][0] + sum(max(0.0, told - guess) for told, guess in pairs)
        return {"token_memory": found | {"by_last_token": guessed, "kept": kept}}

    def _more(self, recurrence: Recurrence, read: ProbeContexts) -> dict[str, Any]:
        values = self.values
        labelled = self._labelled(read, None if values is None else len(values))
        if values is not None:
            values = values.to(labelled.contexts.device).double()[labelled.types]
        return {
            "memory_capacity": memory_capacity(labelled, values),
            "contributions": contributions(recurrence, read, **self._given),
            "jacobian": {"method": recurrence.derivative, "error": recurrence.derivative_error},
        }

    def _split(self, recurrence: Recurrence, read: ProbeContexts) -> dict[str, Any]:
        contexts_ND = read.contexts
        figures, vectors_DK = matrix_sections(contexts_ND, **self._given)
        if read.is_projected:
            figures |= sketched_sections(read, figures)
        found = {
            "num_tokens": len(contexts_ND),
            "context_dim": recurrence.context_dim,
            **figures,
            "identity_cosine": identity_cosine(read.trajectory),
            "token_dependency": token_dependency(
                recurrence, read.states, read.tokens, **self._given
            ),
        }
        if self.text is None:
            return found
        count = self.config.analysis.tokens_per_singular_vector
        loadings = token_loadings(
            contexts_ND, vectors_DK, read.tokens.reshape(-1), num_tokens=count
        )
        found["singular_vectors"] = vectors = []
        for value, loaded in zip(figures["top_singular_values"], loadings, strict=True):
            tokens = [{"id": id, "text": self.text(id), "loading": x} for id, x in loaded]
            vectors.append({"singular_value": value, "tokens": tokens})
        return found
