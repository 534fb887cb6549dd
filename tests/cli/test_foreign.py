"""`newllm analyze` on a network that is a function in a file."""

import math

import numpy as np
import pytest

from newllm_core.plugins.plugin import FROM_FILES

from .inside import CommandLine

STEP = """
import torch
E = torch.eye(9)
start = {"h": torch.zeros(1, 9)}
def step(state, ids):
    return {"h": 0.5 * state["h"] + E[ids]}
"""


@pytest.fixture
def newllm(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "leaky.py").write_text(STEP)
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 9, 500))
    yield CommandLine(monkeypatch, capsys)
    FROM_FILES.clear()


def test_a_file_with_a_step_is_examined(newllm, tmp_path):
    given = ("--tokens", "ids.npy", "--dynamics-steps", "40", "--json")
    result = newllm("analyze", "--plugin", "leaky.py", *given, "--html", "page.html")
    assert result.code == 0, result.err
    figures = result.json["train"]
    assert figures["lyapunov_exponent"]["mean"] == pytest.approx(math.log(0.5), abs=1e-5)
    assert result.json["state"]["parts"] == {"h": 9}
    assert "Where it forgets" in (tmp_path / "page.html").read_text()
    assert newllm("analyze", "leaky.py", *given).json["train"] == figures


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("analyze",), 2, "what is to be analysed?"),
        (("analyze", "leaky.py"), 2, "has no text: give --tokens FILE"),
        (("analyze", "leaky.py", "--tokens", "leaky.py"), 2, "the network has no tokenizer"),
        (("analyze", "leaky.py", "--as", "grru", "--tokens", "ids.npy"), 2, "did you mean 'gru'"),
        (("analyze", "ids.npy", "--as", "gru", "--tokens", "ids.npy"), 3, "safetensors"),
    ],
)
def test_what_is_missing_is_said_in_one_line(newllm, arguments, code, words):
    result = newllm(*arguments)
    assert result.code == code
    assert words in result.err
