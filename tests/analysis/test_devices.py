"""What is in memory already is looked at on the device where it is."""

import torch

from newllm_core.analysis import examine, examine_states

from . import maps
from .alike import assert_same
from .maps import SMALL


def test_states_and_networks_are_looked_at_where_they_are(exact_device):
    states, read, carried = maps.draw(60, 5), maps.draw(20, 8), maps.draw(8, 8, seed=1)
    tokens = maps.random_tokens(6, 96, 20)

    def figures(device):
        read_VC, carried_CC = read.to(device), 0.3 * carried.to(device)
        start = torch.zeros(1, 8, dtype=torch.float64, device=device)
        told = examine(
            lambda state, ids: torch.tanh(state @ carried_CC + read_VC[ids]),
            tokens,
            start=start,
            values=read[:, 0].to(device),
            config=SMALL,
        )
        return {"states": examine_states(states.to(device)), "network": told}

    assert_same(figures(exact_device), figures(torch.device("cpu")))
