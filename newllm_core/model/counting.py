"""What is counted in a text before anything is trained: embeddings and bigrams.

Shapes: T tokens, P different pairs of tokens, V vocabulary, E embed_dim.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from newllm_core.files.npy_files import release_pages
from newllm_core.model.bigrams import Bigrams
from newllm_core.runtime.device import one_thread
from newllm_core.runtime.progress import Progress
from newllm_core.runtime.repeatable import seeded

# Neighbours at distances 1 to 4 count 1, 1/2, 1/3, 1/4, as in GloVe (Pennington et al. 2014).
WINDOW = 4
# Counts of neighbours are raised to this power, so that rare ones do not stand out.
SMOOTHING = 0.75
# Tokens that share all their neighbours are told apart by this share of their random start.
NOISE = 0.1
# More directions than are kept make those that are kept exact (Halko et al. 2011).
OVERSAMPLING = 8
CHUNK_TOKENS = 1 << 20
# Of more pairs than these the lightest are forgotten: what bounds memory.
MOST_PAIRS = 1 << 24
# The discount D of bigrams where a text is too short to have every count from 1 to 4.
SHORT = (0.0, 0.5, 1.0, 1.5)


@torch.no_grad()
def count_embeddings(
    table_VE: Tensor, tokens: np.ndarray, *, seed: int, progress: Progress
) -> None:
    """Fill a table of embeddings with vectors counted from `tokens` [T].

    Counted vectors have norm 1 on average, and a tenth of a row's random start is added to them;
    rows of tokens that do not occur, or say nothing about neighbours, stay as they are. The same
    tokens and seed give the same vectors, whatever the number of threads.
    """
    vocab_size, dim = table_VE.shape
    keys_P, weights_P = count_pairs(tokens, vocab_size, WINDOW, "counting neighbours", progress)
    progress.message(
        f"counting embeddings: {len(keys_P):,} pairs of neighbours in {len(tokens):,} tokens of "
        f"training text; factoring them into {dim:,} dimensions"
    )
    matrix = positive_pmi(*np.divmod(keys_P, vocab_size), weights_P, vocab_size)
    seen_V = torch.sparse.sum(matrix, dim=1).to_dense() > 0
    counted_NE = factors(matrix, dim, seed).to(table_VE)[seen_V]
    table_VE[seen_V] = counted_NE / counted_NE.norm(dim=1).mean() + NOISE * table_VE[seen_V]
    progress.message(
        f"counted {int(seen_V.sum()):,} embeddings, {int((~seen_V).sum()):,} stay random"
    )


def count_pairs(
    tokens: np.ndarray, vocab_size: int, window: int, label: str, progress: Progress
) -> tuple[np.ndarray, np.ndarray]:
    """Count how often a token v stands at most `window` places before another one, w.

    Returns:
        v V + w of each of the heaviest pairs, in order, and its weight [P].
    """
    pairs_P: np.ndarray = np.empty(0, np.int64)
    weights_P: np.ndarray = np.empty(0)
    with progress.task(label, len(tokens), "tokens") as task:
        for begin in range(0, len(tokens), CHUNK_TOKENS):
            part = np.asarray(tokens[begin : begin + CHUNK_TOKENS + window], np.int64)
            found, weights = [pairs_P], [weights_P]
            for distance in range(1, window + 1):
                left = part[:CHUNK_TOKENS][: max(len(part) - distance, 0)]
                right = part[distance:][: len(left)]
                distinct, counts = np.unique(left * vocab_size + right, return_counts=True)
                found.append(distinct)
                weights.append(counts / distance)
            pairs_P, weights_P = add_up(found, weights)
            release_pages(tokens)
            task.advance(min(CHUNK_TOKENS, len(tokens) - begin))
    return pairs_P, weights_P


def positive_pmi(
    left_P: np.ndarray, right_P: np.ndarray, weights_P: np.ndarray, vocab_size: int
) -> Tensor:
    """Compute what tokens say about their neighbours beyond chance, sparse [V, 2V].

        max(0, log(p(w, n) / (p(w) p(n))))    p(n) ∝ count(n)^.75

    Columns are the tokens that follow, then the tokens that precede.

    Source: Levy, Goldberg & Dagan 2015, "Improving Distributional Similarity with Lessons Learned
    from Word Embeddings".
    """
    rows = np.concatenate([left_P, right_P])
    columns = np.concatenate([right_P, left_P + vocab_size])
    weights = np.concatenate([weights_P, weights_P])
    of_row = np.bincount(rows, weights, vocab_size)
    of_column = np.bincount(columns, weights, 2 * vocab_size) ** SMOOTHING
    chance = of_column / of_column.sum()
    information = np.log(weights / of_row[rows] / chance[columns])
    positive = information > 0
    indices = torch.from_numpy(np.stack([rows, columns])[:, positive])
    values = torch.from_numpy(information[positive]).float()
    shape = (vocab_size, 2 * vocab_size)
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)


def factors(matrix: Tensor, dim: int, seed: int) -> Tensor:
    """Factor a sparse matrix [V, N] into rows u √s [V, dim], the strongest directions first.

    Columns that a matrix of low rank does not have are zero.
    """
    rank = min(dim + OVERSAMPLING, *matrix.shape)
    # Sums of several threads are rounded differently; the library draws from the global stream.
    with one_thread(), seeded(seed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        left, strength, _ = torch.svd_lowrank(matrix.to_sparse_csr(), rank, niter=1)
    # Directions beyond the rank of the matrix are rounding errors.
    strength = torch.where(strength > 1e-5 * strength[:1], strength, 0)
    found = (left * strength.sqrt())[:, :dim]
    return F.pad(found, (0, dim - found.shape[1]))


@torch.no_grad()
def count_bigrams(bigrams: Bigrams, tokens: np.ndarray, *, end_id: int, progress: Progress) -> None:
    """Fill `bigrams` with what `tokens` [T] says; `end_id` precedes the first one."""
    vocab_size = bigrams.vocab_size
    keys_P, n_P = count_pairs(tokens, vocab_size, 1, "counting pairs", progress)
    first_1 = np.array([end_id * vocab_size + int(tokens[0])])
    keys_P, n_P = add_up([keys_P, first_1], [n_P, np.ones(1)])
    n_P = n_P.astype(np.int64)
    first_P, second_P = np.divmod(keys_P, vocab_size)
    before_V = np.bincount(second_P, minlength=vocab_size)
    of_pair, of_single = _discounts(n_P), _discounts(before_V)
    taken_V = of_single[np.minimum(before_V, 3)]
    single_V = before_V - taken_V + taken_V.sum() / vocab_size
    kept_P = heaviest(n_P, len(bigrams.counts))
    given_P = (n_P - of_pair[np.minimum(n_P, 3)])[kept_P]
    totals_V = np.bincount(first_P, n_P, vocab_size)
    rest_V = totals_V - np.bincount(first_P[kept_P], given_P, vocab_size)
    unused = (0, len(bigrams.pairs) - len(kept_P))
    made = {
        "pairs": np.pad(keys_P[kept_P], unused, constant_values=vocab_size**2),
        "counts": np.pad(n_P[kept_P], unused),
        "totals": totals_V,
        "rest": rest_V,
        "single": single_V / single_V.sum(),
        "discounts": of_pair,
    }
    bigrams.load_state_dict({name: torch.from_numpy(values) for name, values in made.items()})
    progress.message(
        f"counted {len(n_P):,} pairs of neighbours in {len(tokens):,} tokens of training text, "
        f"{len(kept_P):,} of them kept"
    )


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Return the discounts of counts 0, 1, 2, and 3 and more, all that there are being `counts`.

        D(n) = n - (n + 1) Y N(n + 1) / N(n)    Y = N(1) / (N(1) + 2 N(2))

    N(n) of the counts are n, and D(0) = 0 (Chen & Goodman 1999, section 3.6).
    """
    of_count = [int((counts == n).sum()) for n in range(5)]
    if not all(of_count[1:]):
        return np.array(SHORT)
    y = of_count[1] / (of_count[1] + 2 * of_count[2])
    made = [n - (n + 1) * y * of_count[n + 1] / of_count[n] for n in (1, 2, 3)]
    return np.array([0.0, *(min(max(d, 0), n) for n, d in enumerate(made, start=1))])


def add_up(
    keys: Sequence[np.ndarray], weights: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the different keys in order, and the sum of weights of each [P]."""
    keys_P, places = np.unique(np.concatenate(keys), return_inverse=True)
    weights_P = np.bincount(places, np.concatenate(weights), len(keys_P))
    if len(keys_P) > MOST_PAIRS:
        kept_P = heaviest(weights_P, MOST_PAIRS)
        keys_P, weights_P = keys_P[kept_P], weights_P[kept_P]
    return keys_P, weights_P


def heaviest(weights_P: np.ndarray, most: int) -> np.ndarray:
    """Return the places of the largest weights, in order; of equal ones the first."""
    return np.sort(np.argsort(-weights_P, kind="stable")[:most])
