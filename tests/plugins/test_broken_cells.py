"""What a broken cell does to the command that asks for it: one line, before anything is trained."""

import pytest

HEAD = """
import torch
from torch import nn
from newllm_core.model.cells.base import Cell

class Broken(Cell):
    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.update = nn.Linear(context_dim + embed_dim, context_dim)
    def forward(self, *, context, token):
        new = torch.tanh(self.update(torch.cat([context, token], -1)))
"""
NAME = "cell 'broken' of newllm-broken 1.2 (broken_cell:Broken)"
# The end of forward, and what the line says.
BROKEN = {
    "new[:, :-1], token": "context that is float32 of shape [3, 7], expected float32 of shape",
    "new, token[:, :-1]": "token that is float32 of shape [3, 7], expected float32 of shape [3, 8]",
    "new[:1], token": "a context that is float32 of shape [1, 8]",
    "new.double(), token": "a context that is float64 of shape [3, 8], expected float32",
    "new.long(), token": "a context that is int64",
    "new, token.double()": "a token that is float64",
    "3.0, token": "a context that is a float, expected float32",
    "new, None": "a token that is a NoneType",
    "new": "forward returned float32 of shape [3, 8], expected (context, token)",
    "None": "forward returned a NoneType, expected (context, token)",
    "new.exp().log_(), token": "failed: RuntimeError: one of the variables needed for gradient",
    "new * float('nan'), token": "forward returns nan for ordinary contexts",
    "new, (token - 9).exp() / 0": "forward returns inf for ordinary contexts",
    "1 / 0": "failed: ZeroDivisionError: division by zero (broken_cell.py:12",
}


def install(site, source):
    site.install("newllm-broken", {"broken": "broken_cell:Broken"}, kind="cell", broken_cell=source)


@pytest.mark.parametrize("returned", BROKEN)
def test_what_it_returns_is_compared_with_what_is_wanted(site, phase1, tmp_path, returned):
    install(site, f"{HEAD}        return {returned}\n")
    done = phase1("--cell", "broken", "--num-layers", "2")
    done.one_line(NAME, BROKEN[returned])
    assert (done.code, done.out) == (4, "")
    assert not list(tmp_path.glob("phase1*"))


@pytest.mark.parametrize("first", ["pass", "self.update = nn.Linear(2, 2)"])
def test_a_forgotten_parent_is_told(site, phase1, newllm, first):
    made = HEAD.index("        super()"), HEAD.index("    def forward")
    install(site, f"{HEAD[: made[0]]}        {first}\n{HEAD[made[1] :]}        return new, token\n")
    for done in (phase1("--cell", "broken"), newllm("plugins", "--check")):
        done.one_line(NAME, "AttributeError", ": call super().__init__(…) first")
        assert done.code == 4


def test_the_last_token_is_not_looked_at(site, phase1):
    install(site, f"{HEAD}        return new, None if self.is_last else token\n")
    assert phase1("--cell", "broken", "--num-layers", "2").code == 0


def test_huge_numbers_are_numbers(site, phase1):
    install(site, f"{HEAD}        return new, token * 1e30\n")
    assert phase1("--cell", "broken", "--num-layers", "2").code == 0


def test_without_parameters_there_is_nothing_to_train(site, phase1, newllm):
    source = HEAD[: HEAD.index("    def __init__")] + (
        "    def forward(self, *, context, token):\n"
        "        return (context + token).tanh(), token\n"
    )
    install(site, source)
    words = "has no parameters: there is nothing to train"
    for done in (
        phase1("--cell", "broken"),
        phase1("--cell", "broken", "--objective", "cvfp"),
        newllm("bench", "--cell", "broken", "--preset", "tiny", "--rounds", "1"),
    ):
        done.one_line(f"{NAME} {words}")
        assert done.code == 4
    checked = newllm("plugins", "--check")
    assert "breaks its contract: parameters: it has none" in checked.err
