"""What a model makes of a text, per token and per unit of text: train and validation alike.

Shapes: N rows (tokens), V vocabulary, C context_dim.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from newllm_core.data.prepared import PreparedDataset, TokenSplit
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.model.heads import weighted_mean
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.device import where_exact
from newllm_core.runtime.precision import at_least_float32
from newllm_core.runtime.progress import Progress, Silent, Task
from newllm_core.trajectory.text import ContextChunk, contexts_of_text

UNITS = ("bytes", "characters", "words")
# Logits of so many (row, token) pairs exist at a time, whatever the vocabulary; a GPU is better
# asked for more at once.
LOGITS_AT_ONCE, ON_GPU = 2**23, 2**26
# Of the training split so many are predicted: enough to see overfitting.
TRAIN_TOKENS = 8_192


@dataclass(frozen=True)
class Scores:
    """What every head made of some tokens: nats, their squares and hits, summed [heads]."""

    num_tokens: int
    nats: np.ndarray
    squares: np.ndarray
    hits: np.ndarray

    def figures(
        self, head_weights: Sequence[float], counts: Mapping[str, float | None]
    ) -> dict[str, Any]:
        """Return figures of tokens that stand for so much text.

        Bytes that tokens do not give back are no part of the loss: figures per byte, character and
        word count them with 8 bits each.

        Args:
            head_weights: what each head counts when they are taken together.
            counts: `num_bytes`, `num_characters`, `num_words`, `unknown_share` and `lost_share` of
                the text; None is what is not known.

        Returns:
            `counts` and `num_tokens`; `loss` (nats per token), `loss_stderr` (its standard
            error if tokens were independent), `perplexity`, `accuracy`, `bits_per_byte`,
            `bits_per_byte_stderr`, `bits_per_character` and `word_perplexity` of the heads together
            (perplexities from the mean loss); under `heads` the same of each head. A figure that
            does not exist (words of Japanese, an exponential out of range) is None.
        """
        count = self.num_tokens
        num_bytes, num_characters, num_words = (counts[f"num_{unit}"] for unit in UNITS)
        lost = _lost_nats(counts)
        losses = self.nats / count
        errors = np.sqrt(np.maximum(0, self.squares / count - losses**2) / count)

        def of_one(loss: float, error: float, accuracy: float) -> dict[str, Any]:
            total = loss * count + lost
            bits, bits_error = total / math.log(2), error * count / math.log(2)
            return {
                "loss": loss,
                "loss_stderr": error,
                "perplexity": _exp(loss),
                "accuracy": accuracy,
                "bits_per_byte": bits / num_bytes if num_bytes else None,
                "bits_per_byte_stderr": bits_error / num_bytes if num_bytes else None,
                "bits_per_character": bits / num_characters if num_characters else None,
                "word_perplexity": _exp(total / num_words) if num_words else None,
            }

        # Heads are wrong about the same tokens: their errors add up as if they were one.
        each = [found.tolist() for found in (losses, errors, self.hits / count)]
        together = of_one(*(weighted_mean(of_heads, head_weights) for of_heads in each))
        heads = list(map(of_one, *each))
        return {**together, "num_tokens": count, **counts, "heads": heads}


def evaluate(
    model: LanguageModel,
    text: TokenSplit,
    *,
    end_id: int,
    head_weights: Sequence[float],
    max_tokens: int | None = None,
    bytes_of: Callable[[np.ndarray], int | None] = lambda tokens: None,
    progress: Progress | None = None,
    label: str = "evaluating",
) -> dict[str, Any]:
    """Predict every token of `text` once, each from everything before it; constant memory.

    The first token is predicted from `end_id`, which closes documents. Of whole documents up to
    `max_tokens` are used, so that bits per byte stay exact; of a first one that is longer its
    beginning, with as many bytes as `bytes_of` finds in those tokens, if it knows.

    Returns `Scores.figures`, where words and characters of a part of the text are not known.
    `InputError` if there are no tokens.
    """
    documents = max(0, len(text.document_starts) - 1)
    if max_tokens is not None:
        fitting = int(np.searchsorted(text.document_starts, max_tokens, side="right")) - 1
        documents = min(fitting, documents)
    num_tokens = int(text.document_starts[documents])
    num_bytes: int | None = int(np.sum(text.document_bytes[:documents], dtype=np.int64))
    if num_tokens == 0 and max_tokens is not None:
        num_tokens = min(max_tokens, len(text.tokens))
        num_bytes = bytes_of(text.tokens[:num_tokens])
    if num_tokens == 0:
        raise InputError("there are no tokens to evaluate: prepare data with more documents")
    # Words and characters are counted for the whole text only.
    whole = num_tokens == len(text.tokens)

    readings = contexts_of_text(model, text.tokens[:num_tokens], end_id=end_id)
    with (progress or Silent()).task(label, num_tokens, "tokens") as task:
        scores = score(model, readings, task)
    counts = {
        "num_bytes": num_bytes or None,
        "num_characters": text.num_characters if whole else None,
        "num_words": text.num_words if whole else None,
        "unknown_share": text.unknown_share,
        "lost_share": text.lost_share,
    }
    return scores.figures(head_weights, counts)


def evaluate_splits(
    model: LanguageModel,
    dataset: PreparedDataset,
    *,
    head_weights: Sequence[float],
    max_tokens: int | None = None,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """`evaluate` validation and the beginning of train, or a report would take an epoch.

    `max_tokens` is that of validation; all by default.
    """
    common: dict[str, Any] = {"end_id": int(dataset.info.end_id), "head_weights": head_weights}
    common |= {"progress": progress, "bytes_of": partial(_bytes_of, dataset.tokenizer_json)}
    validation = evaluate(
        model, dataset.validation, max_tokens=max_tokens, label="evaluating validation", **common
    )
    max_tokens = min(validation["num_tokens"], TRAIN_TOKENS)
    train = evaluate(
        model, dataset.train, max_tokens=max_tokens, label="evaluating train", **common
    )
    return {"train": train, "validation": validation}


def _bytes_of(tokenizer_json: str, tokens: np.ndarray) -> int | None:
    """Count bytes of the text that `tokens` stand for; None if they need not give it back."""
    tokenizer = TextTokenizer.from_json(tokenizer_json)
    if not tokenizer.is_lossless:
        return None
    return sum(len(tokenizer.bytes_of(token) or b"") for token in tokens.tolist())


def score(model: LanguageModel, readings: Iterable[ContextChunk], task: Task) -> Scores:
    """Score every token of `readings` with every head; `task` is told of each chunk."""
    num_tokens = 0
    sums = np.zeros((model.num_heads, 3))
    for reading in readings:
        # Around all of a chunk, so that the weights are rounded once.
        with model.narrow_products():
            sums += _score(model, reading)
        num_tokens += len(reading.positions_N)
        task.advance(len(reading.positions_N))
    return Scores(num_tokens, *sums.T)


@torch.no_grad()
def _score(model: LanguageModel, reading: ContextChunk) -> list[tuple[float, float, int]]:
    """Sum nats, their squares and hits of each head."""
    # Products are as narrow as the model's, which changes a mean by 2e-5 nats. What follows is made
    # in float32 at least (in bfloat16 it would be .0003 off), and summed in float64.
    at_once = LOGITS_AT_ONCE if model.device.type == "cpu" else ON_GPU
    rows = max(1, at_once // model.vocab_size)
    scores = []
    contexts = reading.contexts[len(reading.contexts) - model.num_heads :]
    for head, context_NC in zip(model.heads(), contexts, strict=True):
        sums = []
        hits = torch.zeros((), dtype=torch.int64, device=context_NC.device)
        parts = (of_all.split(rows) for of_all in (context_NC, reading.inputs_N, reading.targets_N))
        for part_NC, inputs_N, targets_N in zip(*parts, strict=True):
            values_NV, are_probabilities = model.mixed(head, part_NC, inputs_N)
            values_NV = at_least_float32(values_NV)
            reached_N = values_NV.gather(1, targets_N[:, None])[:, 0]
            if are_probabilities:
                losses_N = -where_exact(reached_N).double().log()
            else:
                losses_N = F.cross_entropy(values_NV, targets_N, reduction="none")
                losses_N = where_exact(losses_N).double()
            sums.append(torch.stack([losses_N.sum(), losses_N.square().sum()]))
            # Targets that are the first of the largest; `argmax` of every row is slow.
            candidates = (reached_N == values_NV.amax(-1)).nonzero()[:, 0]
            among_MV = values_NV.index_select(0, candidates)
            hits += (among_MV.argmax(-1) == targets_N[candidates]).sum()
        nats, squares = torch.stack(sums).sum(0).tolist()
        scores.append((nats, squares, int(hits)))
    return scores


def without_line_ends(figures: dict[str, Any], num_line_ends: int | None) -> dict[str, Any]:
    """Return figures of `evaluate`, with those for words between white space alone.

    Published perplexities of WikiText count a line end as a word, and so does `num_words`.
    `num_whitespace_words` and `whitespace_word_perplexity` do not; they are None where one of the
    two counts is not known.
    """
    words = figures["num_words"]
    words = None if words is None or num_line_ends is None else words - num_line_ends

    def added(of_one: dict[str, Any]) -> dict[str, Any]:
        total = of_one["loss"] * figures["num_tokens"] + _lost_nats(figures)
        return of_one | {"whitespace_word_perplexity": _exp(total / words) if words else None}

    heads = [added(head) for head in figures["heads"]]
    return added(figures) | {"num_whitespace_words": words, "heads": heads}


def _lost_nats(counts: Mapping[str, Any]) -> float:
    """Return what it takes to write lost bytes as they are."""
    return (counts["num_bytes"] or 0) * (counts["lost_share"] or 0.0) * math.log(256)


def _exp(value: float) -> float | None:
    try:
        return math.exp(value)
    except OverflowError:
        return None
