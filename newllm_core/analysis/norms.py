"""Zero solution: how long the contexts are.

Shapes: N contexts, D context_dim.
"""

import torch
from torch import Tensor

from newllm_core.analysis.rows import Rows
from newllm_core.analysis.summary import summary


def norm_summary(matrix: Tensor | Rows) -> dict[str, float]:
    """Mean, median, std, min and max of the Euclidean norms of the rows of `matrix` [N, D]."""
    return summary(torch.cat([chunk.norm(dim=1) for chunk in Rows.of(matrix).chunks()]))
