"""How several token heads count together."""

import pytest
import torch

from newllm_core.errors import ConfigError
from newllm_core.model.heads import head_weights, weighted_mean

SIX = (0.5, 0.7, 0.8, 0.9, 1.0, 1.2)


@pytest.mark.parametrize(
    ("configured", "num_heads", "expected"),
    [
        (SIX, 6, list(SIX)),
        (SIX, 1, [1.2]),
        (SIX, 2, [0.5, 1.2]),
        (SIX, 3, [0.5, 0.85, 1.2]),
        (SIX, 11, [0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2]),
        ((0.4,), 3, [0.4, 0.4, 0.4]),
        ((0.0, 1.0), 1, [1.0]),
    ],
)
def test_weights_are_interpolated_with_both_ends_kept(configured, num_heads, expected):
    assert head_weights(configured, num_heads) == pytest.approx(expected, abs=1e-12)


def test_weights_that_vanish_for_this_many_heads_are_refused():
    with pytest.raises(ConfigError, match=r"phase2\.head_weights"):
        head_weights((0.0, 1.0, 0.0), 2)


def test_weighted_mean_of_numbers_and_tensors():
    assert weighted_mean([2.0, 5.0], [1.0, 3.0]) == 4.25
    found = weighted_mean([torch.tensor([2.0, 0.0]), torch.tensor([5.0, 4.0])], [1.0, 3.0])
    assert found.tolist() == [4.25, 3.0]
