"""Figures of a language model: what it made of tokens, per token and per unit of their text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from newllm_core.model.heads import weighted_mean


@dataclass(frozen=True)
class Scores:
    """What every head made of some tokens: nats, their squares and hits, summed."""

    num_tokens: int
    nats: Sequence[float]
    squares: Sequence[float]
    hits: Sequence[int]

    def figures(
        self,
        head_weights: Sequence[float],
        *,
        num_bytes: int | None,
        num_words: int | None,
        num_characters: int | None,
        unknown_share: float | None,
        lost_share: float | None,
    ) -> dict[str, Any]:
        """Return figures of tokens that stand for so much text.

        Bytes that tokens do not give back are no part of the loss: figures per byte, character and
        word count them with 8 bits each.

        Args:
            head_weights: one for each head.
            num_bytes: UTF-8 bytes of the text; None here and below if not known.
            num_words: see `count_words`.
            num_characters: Unicode code points.
            unknown_share: of the tokens.
            lost_share: of the bytes, those that tokens do not give back.

        Returns:
            The arguments under their names, and `num_tokens`; `loss` (nats per token) and
            `loss_stderr`, its standard error if tokens were independent, `perplexity`, `accuracy`,
            `bits_per_byte` and `bits_per_byte_stderr`, `bits_per_character`, `word_perplexity` of
            the heads together (perplexities from the mean loss); and under `heads` a list of the
            same figures of each head. A figure that does not exist (bytes of hand-made tokens,
            words of Japanese, an exponential out of range) is None.
        """
        count = self.num_tokens
        losses = [total / count for total in self.nats]
        accuracies = [hits / count for hits in self.hits]
        errors = [
            max(0.0, squares / count - loss**2) ** 0.5 / count**0.5
            for squares, loss in zip(self.squares, losses, strict=True)
        ]

        def of_one(loss: float, error: float, accuracy: float) -> dict[str, Any]:
            total = loss * count + _lost_nats(num_bytes, lost_share)
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
        each = (losses, errors, accuracies)
        together = of_one(*(weighted_mean(of_heads, head_weights) for of_heads in each))
        counts = {
            "num_tokens": count,
            "num_bytes": num_bytes,
            "num_characters": num_characters,
            "num_words": num_words,
            "unknown_share": unknown_share,
            "lost_share": lost_share,
        }
        return together | counts | {"heads": list(map(of_one, *each))}


def without_line_ends(figures: dict[str, Any], num_line_ends: int | None) -> dict[str, Any]:
    """Return figures of `evaluate`, with those for words between white space alone.

    Published perplexities of WikiText count a line end as a word, and so does `num_words`.
    `num_whitespace_words` and `whitespace_word_perplexity` do not; they are None where one of the
    two counts is not known.
    """
    words = figures["num_words"]
    words = None if words is None or num_line_ends is None else words - num_line_ends

    def added(of_one: dict[str, Any]) -> dict[str, Any]:
        lost = _lost_nats(figures["num_bytes"], figures["lost_share"])
        total = of_one["loss"] * figures["num_tokens"] + lost
        return of_one | {"whitespace_word_perplexity": _exp(total / words) if words else None}

    heads = [added(head) for head in figures["heads"]]
    return added(figures) | {"num_whitespace_words": words, "heads": heads}


def _lost_nats(num_bytes: int | None, lost_share: float | None) -> float:
    """Return what it takes to write lost bytes as they are."""
    return (num_bytes or 0) * (lost_share or 0.0) * math.log(256)


def _exp(value: float) -> float | None:
    try:
        return math.exp(value)
    except OverflowError:
        return None
