"""Mistakes in settings, named with their place before anything is done."""

from pathlib import Path

ODD = """
from dataclasses import dataclass
import torch
from newllm_core.regularizers.base import Regularizer

@dataclass(frozen=True)
class OddOptions:
    k: int = 3
    most: int = 5
    def __post_init__(self):
        if self.k % 2 == 0 or self.k > self.most:
            raise ValueError("k must be odd")

class Odd(Regularizer):
    Options = OddOptions
    def loss(self, contexts, *, tokens_N):
        return contexts.square().mean()
"""


def test_options_that_check_themselves_are_one_line(newllm):
    Path("odd.py").write_text(ODD)
    given = ("phase1", "--plugin=odd.py", "--reg=odd")
    done = newllm(*given, "--set=regularizer.k=4")
    assert done.code == 2
    assert "regularizer 'odd' refuses its options: k must be odd" in done.err
    shown = newllm("plugins", "--plugin=odd.py", "show", "odd")
    assert shown.code == 0
    assert "k must" not in shown.err
    assert newllm("plugins", "--json", "show", "none").code == 2


def test_a_mistake_in_options_is_named_with_its_place(newllm, monkeypatch):
    Path("c.toml").write_text("[cell]\ndepht = 3\n")
    done = newllm("phase1", "--config=c.toml")
    assert done.code == 2
    assert done.err.startswith("newllm: c.toml: unknown key cell.depht of cell 'residual'")
    monkeypatch.setenv("NEWLLM_SOURCE_ENCODIGN", "x")
    done = newllm("prepare", "--source=text-file", "--input=c.toml")
    assert done.code == 2
    place = "newllm: environment variable NEWLLM_SOURCE_ENCODIGN: unknown key source.encodign"
    assert done.err.startswith(place)


def test_quickstart_reports_mistakes_before_it_begins(newllm):
    for mistake in ("cell.depht=3", "phase2.candidates_share=1"):
        done = newllm("quickstart", "--out=q", f"--set={mistake}")
        assert done.code == 2
        assert not Path("q").exists()


def test_options_of_a_file_that_are_right_together_are_taken(newllm):
    Path("odd.py").write_text(ODD)
    Path("c.toml").write_text('[phase1]\nreg = "odd"\n[regularizer]\nk = 7\nmost = 9\n')
    done = newllm("phase1", "--plugin=odd.py", "--config=c.toml", "--data=nowhere")
    assert done.code == 3  # there is no such data; the settings are right
    Path("c.toml").write_text('[phase1]\nreg = "odd"\n[regularizer]\nk = 4\nmost = 9\n')
    done = newllm("phase1", "--plugin=odd.py", "--config=c.toml", "--data=nowhere")
    assert done.err.startswith("newllm: c.toml: regularizer 'odd' refuses its options")
    Path("c.toml").write_text('[phase1]\nreg = "odd"\n[regularizer]\nk = 7\nmost = 9\n')
    done = newllm("phase1", "--plugin=odd.py", "--config=c.toml", "--set=regularizer.mosst=1")
    assert done.err.startswith("newllm: unknown key regularizer.mosst")
