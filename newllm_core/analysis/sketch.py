"""A long vector as a short one: lengths and angles are kept, but for a known error.

Every number gets a random sign and is added to one of K places, its own place modulo K (a count
sketch: Charikar, Chen & Farach-Colton 2002). K is a prime, so that numbers which belong together
are spread evenly whatever the shape of the state. A squared length has the relative error
`sqrt(2 / K)`.

Shapes: N rows, C numbers, K places.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

# Prime.
PLACES = 4093


class Sketch:
    """Projects vectors of `size` numbers.

    Args:
        size: C.
        seed: of the signs.
        device: of the vectors.
        dtype: of the vectors.
    """

    def __init__(self, size: int, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (size,), generator=generator, dtype=torch.int8) * 2 - 1
        self.signs_C = signs.to(device, dtype)
        self.padding = -size % PLACES

    def __call__(self, vectors_NC: Tensor) -> Tensor:
        """Return the sketches [N, K]."""
        rows = [
            F.pad(vector_C * self.signs_C, (0, self.padding)).view(-1, PLACES).sum(0)
            for vector_C in vectors_NC
        ]
        return torch.stack(rows)


def length_error() -> float:
    """Return the relative standard error of a squared length."""
    return (2 / PLACES) ** 0.5


def folded(sketch_NK: Tensor, times: int) -> Tensor:
    """Return sketches with a `times`-th of the places [N, ceil(K / times)], as good as new."""
    padded = F.pad(sketch_NK, (0, -sketch_NK.shape[-1] % times))
    return padded.unflatten(-1, (times, -1)).sum(-2)
