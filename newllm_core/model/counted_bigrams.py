"""Counting bigrams: how often one token follows another in a text.

Shapes: T tokens, P pairs, V vocabulary.
"""

import numpy as np
import torch

from newllm_core.files.npy_files import release_pages
from newllm_core.model.bigrams import Bigrams
from newllm_core.model.pair_counts import add_up, heaviest
from newllm_core.runtime.progress import Progress

# Of more pairs than these the rarest are forgotten while counting: what bounds memory.
MOST_PAIRS = 1 << 24
CHUNK_TOKENS = 1 << 20
# D where a text is too short to have every count from 1 to 4.
SHORT = (0.0, 0.5, 1.0, 1.5)


@torch.no_grad()
def count_bigrams(bigrams: Bigrams, tokens: np.ndarray, *, end_id: int, progress: Progress) -> None:
    """Fill `bigrams` with what `tokens` [T] says; `end_id` precedes the first one.

    The text may be mapped, and is read once. The same tokens give the same counts.
    """
    vocab_size = bigrams.vocab_size
    keys_P, n_P = count_neighbours(tokens, vocab_size, end_id=end_id, progress=progress)
    first_P, second_P = np.divmod(keys_P, vocab_size)
    before_V = np.bincount(second_P, minlength=vocab_size)
    of_pair, of_single = _discounts(n_P), _discounts(before_V)
    taken_V = of_single[np.minimum(before_V, 3)]
    single_V = before_V - taken_V + taken_V.sum() / vocab_size
    kept_P = heaviest(n_P, len(bigrams.counts))
    given_P = (n_P - of_pair[np.minimum(n_P, 3)])[kept_P]
    totals_V = np.bincount(first_P, n_P, vocab_size)
    rest_V = totals_V - np.bincount(first_P[kept_P], given_P, vocab_size)
    pairs = np.zeros(bigrams.pairs.shape, np.int32)
    pairs[0] = vocab_size
    pairs[:, : len(kept_P)] = np.stack([first_P, second_P])[:, kept_P]
    counts = np.zeros(len(bigrams.counts))
    counts[: len(kept_P)] = n_P[kept_P]
    for part, made in (
        (bigrams.pairs, pairs),
        (bigrams.counts, counts),
        (bigrams.totals, totals_V),
        (bigrams.rest, rest_V),
        (bigrams.single, single_V / single_V.sum()),
        (bigrams.discounts, of_pair),
    ):
        part.copy_(torch.from_numpy(made))
    progress.message(
        f"counted {len(n_P):,} pairs of neighbours in {len(tokens):,} tokens of training text, "
        f"{len(kept_P):,} of them kept"
    )


def count_neighbours(
    tokens: np.ndarray, vocab_size: int, *, end_id: int, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Return v V + w of every two neighbours v w, in order, and how often they occur [P]."""
    keys_P: np.ndarray = np.empty(0, np.int64)
    n_P: np.ndarray = np.empty(0, np.int64)
    last = end_id
    with progress.task("counting pairs", len(tokens), "tokens") as task:
        for begin in range(0, len(tokens), CHUNK_TOKENS):
            part = np.asarray(tokens[begin : begin + CHUNK_TOKENS], np.int64)
            before = np.concatenate([[last], part[:-1]])
            found, n = np.unique(before * vocab_size + part, return_counts=True)
            keys_P, n_P = add_up([keys_P, found], [n_P, n], most=MOST_PAIRS)
            last = int(part[-1])
            release_pages(tokens)
            task.advance(len(part))
    return keys_P, n_P.astype(np.int64)


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Return D of counts 0, 1, 2, and 3 and more."""
    of_count = [int((counts == n).sum()) for n in range(5)]
    if not all(of_count[1:]):
        return np.array(SHORT)
    y = of_count[1] / (of_count[1] + 2 * of_count[2])
    made = [n - (n + 1) * y * of_count[n + 1] / of_count[n] for n in (1, 2, 3)]
    return np.array([0.0, *(min(max(d, 0), n) for n, d in enumerate(made, start=1))])
