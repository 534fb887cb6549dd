"""Where windows of a text lie, epoch after epoch."""

import numpy as np
import pytest

from newllm_core.config import Phase2Config
from newllm_core.training.phase2.streams import Streams, beginning


@pytest.mark.parametrize(("epoch", "first"), [(0, 0), (1, 106), (2, 36)])  # of streams of 166
def test_windows_read_every_token_once(epoch, first):
    streams = Streams(1000, Phase2Config(num_streams=6, bptt=16))
    read = list(streams.windows(epoch))
    places = np.concatenate([positions.ravel() for positions in read])
    assert len(set(places.tolist())) == len(places) == streams.num_tokens == 996
    assert places.max() < 1000
    assert len(read) == streams.num_steps
    assert read[0].shape == (6, 16)
    assert read[0][0, 0] == first


def test_windows_begin_at_every_token_of_a_window():
    # Their number is one of Fibonacci's: the golden ratio of it is all but whole.
    assert {beginning(epoch, 16 * 377, 16) % 16 for epoch in range(21)} == set(range(16))
