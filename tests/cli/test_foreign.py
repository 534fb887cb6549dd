"""`newllm analyze` on a network that is a function in a file."""

import math

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from .inside import save_checkpoint

STEP = """
import torch
E = torch.eye(9)
start = {"h": torch.zeros(1, 9)}
def step(state, ids):
    return {"h": 0.5 * state["h"] + E[ids]}
"""


@pytest.fixture
def newllm(newllm, tmp_path):
    for name in ("leaky.py", "other.py"):
        (tmp_path / name).write_text(STEP)
    np.save(tmp_path / "ids.npy", np.random.default_rng(0).integers(0, 9, 500))
    np.save(tmp_path / "below.npy", np.arange(-1, 500))
    (tmp_path / "book.txt").write_text("the cat sat\n" * 40)
    save_file({"embed": torch.zeros(9, 5)}, tmp_path / "gru.safetensors")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    save_checkpoint(tmp_path / "ours.safetensors")
    return newllm


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
        (("analyze", "--plugin=leaky.py", "--plugin=other.py"), 2, "other.py? give one"),
        (("analyze", "leaky.py"), 2, "has no text: give --tokens FILE"),
        (("analyze", "leaky.py", "--embedding", "E"), 2, "leaky.py says itself what ids stand"),
        (("analyze", "leaky.py", "--tokens", "leaky.py"), 2, "the network has no tokenizer"),
        (("analyze", "leaky.py", "--as", "grru", "--tokens", "ids.npy"), 2, "did you mean 'gru'"),
        (("analyze", "ids.npy", "--as", "gru"), 2, "ids.npy is a matrix: leave out --as"),
        (("analyze", "ids.npy", "--tokens", "ids.npy"), 2, "ids.npy is a matrix: leave out"),
        (
            ("analyze", "leaky.py", "--tokens", "ids.npy", "--tokens", "data"),
            *(2, "--tokens data: a folder has two texts already: give it alone"),
        ),
        (("analyze", "leaky.py", "--tokens", "none.txt"), 3, "no such file of --tokens: none.txt"),
        (("analyze", "leaky.py", "--tokens", "below.npy"), 3, "has the id -1"),
        (("analyze", "none.py", "--tokens", "ids.npy"), 3, "no such plugin: none.py"),
        (("analyze", "gru.safetensors"), 3, "--as KIND --tokens IDS"),
        (("analyze", "gru.safetensors", "--tokens", "ids.npy"), 2, "give --as, one of gru"),
        (("analyze", "gru.safetensors", "--embedding", "embed"), 2, "give --as"),
        (("analyze", "ours.safetensors", "--tokens", "book.txt"), 2, "leave out --tokens"),
        (("analyze", "ours.safetensors", "--embedding", "x"), 2, "leave out --tokens and --embed"),
        (("analyze", "gru.safetensors", "--tensor", "embed", "--as", "gru"), 2, "leave out --as"),
        (("analyze", "data"), 3, "data is prepared data"),
        (("analyze", "data", "--tokens", "ids.npy"), 3, "give a checkpoint that was trained on it"),
        (("analyze", "folder", "--tokens", "ids.npy"), 3, "a folder without a config.json"),
        (("compare", "ours.safetensors", "data"), 3, "data is prepared data"),
        (("compare", "ours.safetensors", "gru.safetensors"), 2, "give --as"),
        (("compare", "ours.safetensors", "leaky.py"), 2, "leaky.py has no text"),
        (("compare", "ours.safetensors", "--as", "gru"), 2, "leave out --tokens, --as"),
    ],
)
def test_what_is_missing_is_said_in_one_line(newllm, arguments, code, words):
    result = newllm(*arguments)
    assert result.code == code
    assert words in result.err
    assert len(result.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("def step(s, ids): raise OSError('no disk')", 4, "OSError: no disk (mine.py:5"),
        ("def step(s): return s", 4, "step failed for token ids up to"),
        ("def step(s, ids): return T[ids]\nT = T[:5]", 4, "IndexError: index"),
        ("def step(s, ids): return T[ids]\nvocab_size = 5", 3, "has the id 8, the network has 5"),
        ("def step(s, ids): return T[ids] + s\ndef control(s, ids): 1 / 0", 4, "control failed"),
        ("def step(s, ids): return T[ids] + 0 * s\ndef text(id): 1 / 0", 4, "text failed: Zero"),
        ("def step(s, ids): return None", 4, "mine.py: step returned tensors of shapes []"),
        (
            "def step(s, ids): return T[ids][:1]",
            4,
            "step returned state of shape [1, 9], expected [",
        ),
        ("def step(s, ids): return T[ids][:, :3]", 4, ", 3], expected ["),
        ("def step(s, ids): return torch.tensor(1.0)", 4, "returned state of shape [], expected"),
        ("def step(s, ids): return T[ids] * 1j", 4, "state of torch.complex64, in start"),
        (
            "def step(s, ids): return s[0], s[1][:1]\nstart = (start, start)",
            4,
            "returned 1 of shape [1, 9]",
        ),
        ("def step(s, ids): return s, s\nstart = (start,)", 4, "tensors of shapes"),
        ("def step(s, ids): return s\ndef control(s, ids): return s[:1]", 4, "control returned"),
        ("def step(s, ids): return s\nvalues = [1, 2]", 4, "values is of type list"),
        ("def step(s, ids): return s\nvalues = T[:5]", 2, "a row for every id up to 8"),
        ("def step(s, ids): return s\ntext = 'mine'", 4, "text is of type str"),
        ("def step(s, ids): return s\nvocab_size = '9'", 4, "newllm reads it as a whole number"),
        ("def step(s, ids): return s\nimport sys\nsys.exit(3)", 4, "imported: SystemExit: 3"),
    ],
)
def test_a_step_that_fails_is_one_line(newllm, tmp_path, source, code, words):
    head = "import torch\nstart = torch.zeros(1, 9)\nT = torch.randn(9, 9)\n\n"
    (tmp_path / "mine.py").write_text(head + source)
    # Few steps: what is shown is worded after everything was measured.
    result = newllm("analyze", "mine.py", "--tokens", "ids.npy", "--dynamics-steps", "5")
    (line,) = [line for line in result.err.splitlines() if line.startswith("newllm: ")]
    assert words in line
    assert code != 4 or "mine.py" in line
    assert "grows" not in line
    assert "Traceback" not in result.err
    assert result.code == code


def test_a_text_that_cannot_be_encoded_names_the_file(newllm, tmp_path):
    for body, words in (("return ['a']", "a list of token ids"), ("1 / 0", "encode failed: Zero")):
        name = f"encode{len(body)}.py"
        (tmp_path / name).write_text(STEP + f"def encode(text):\n    {body}\n")
        result = newllm("analyze", name, "--tokens", "book.txt")
        assert (result.code, len(result.err.splitlines())) == (4, 1)
        assert words in result.err


def test_long_tokens_leave_the_header_whole(newllm, tmp_path):
    (tmp_path / "long.py").write_text(STEP + "def text(id):\n    return 60 * str(id)\n")
    result = newllm("analyze", "long.py", "--tokens", "ids.npy", "--dynamics-steps", "5")
    assert "top singular values   tokens" in result.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--as=lstm",), "step.py says itself what it is: leave out --as lstm"),
        (("--embedding=e",), "step.py says itself what ids stand for: leave out --embedding"),
    ],
)
def test_a_step_says_itself_what_it_is(newllm, tmp_path, options, words):
    (tmp_path / "step.py").write_text("def step(state, ids):\n    return state\n")
    done = newllm("analyze", tmp_path / "step.py", "--tokens=ids.npy", *options)
    assert done.code == 2
    done.one_line(words)
