"""The sections that need nothing but a matrix: norms, pairs, distribution, rank."""

from typing import Any

from newllm_core.analysis.distribution import distribution
from newllm_core.analysis.norms import norm_summary
from newllm_core.analysis.pairwise import pairwise
from newllm_core.analysis.rank import Spectrum, information_content, spectrum
from newllm_core.analysis.rows import Rows


def matrix_sections(
    rows: Rows, *, num_pairs: int, num_vectors: int, seed: int
) -> tuple[dict[str, Any], Spectrum]:
    """Return figures of `rows` [N, D], and the spectrum they come from.

    Args:
        rows: contexts, embeddings, or any matrix of at least two rows.
        num_pairs: pairs that are sampled.
        num_vectors: top singular values and vectors.
        seed: of the sample.
    """
    decomposed = spectrum(rows, num_vectors=num_vectors)
    l2, cosine, histogram = pairwise(rows, num_pairs=num_pairs, seed=seed)
    figures = {
        **information_content(decomposed.singular_values, rows, num_top=num_vectors),
        "norm": norm_summary(rows),
        "pairwise_l2": l2,
        "pairwise_cosine": cosine,
        "cosine_histogram": histogram,
        **distribution(rows),
    }
    return figures, decomposed
