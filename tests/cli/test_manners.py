import dataclasses
import json
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch

from newllm_core.config import SECTIONS
from tests.cli.conftest import run, write_corpus

COMMANDS = ["", "quickstart", "prepare", "phase1", "analyze", "phase2", "expand"]
COMMANDS += ["evaluate", "contexts", "generate"]
HEAVY = ("torch", "numpy", "datasets", "tokenizers", "safetensors")


def test_help_loads_nothing_heavy():
    program = (
        "import sys\n"
        "from newllm_cli.__main__ import main\n"
        f"for command in {COMMANDS}:\n"
        "    sys.argv = ['newllm', *command.split(), '--help']\n"
        "    try: main()\n"
        "    except SystemExit as end: code = end.code\n"
        f"    print('LOADED', command, [m for m in {HEAVY} if m in sys.modules], code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    assert found == [f"LOADED {command} [] 0" for command in COMMANDS]
    assert done.stdout.count("Usage:") == len(COMMANDS)


def test_help_has_whole_sentences_and_one_name_for_each_type(newllm):
    listed = newllm("--help").out.partition("Commands:")[2]
    assert "..." not in listed
    assert "train the heads, generate: in minutes." in " ".join(listed.split())
    shown = newllm("analyze", "--help").out
    assert "<" not in shown
    for flags in ("\n  FILE  ", "--tensor TEXT", "--html PATH", "--exponents INTEGER"):
        assert flags in shown


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """A folder with prepared data and with what nobody should give."""
    folder = tmp_path_factory.mktemp("mistaken")
    (folder / "notes.txt").write_text("no safetensors file")
    (folder / "empty.txt").write_text("")
    (folder / "latin1.txt").write_bytes("Käse und Brot\n\nÄpfel".encode("latin-1"))
    (folder / "foreign.json").write_text("{}")
    write_corpus(folder / "corpus.txt", documents=6)
    source = ("--source=text-file", "--input=corpus.txt", "--document-separator=\\n\\n")
    made = run("prepare", *source, "--vocab-size=300", "--out=runs/data", cwd=folder)
    assert made.code == 0, made.err
    return folder


@pytest.mark.parametrize("section", ["phase1", "model"])
def test_every_setting_is_a_flag_with_its_default(newllm, section):
    help_text = " ".join(newllm("phase1", "--help").out.partition("Options:")[2].split())
    for spec in dataclasses.fields(SECTIONS[section]):
        entry = help_text.partition(f" --{spec.name.replace('_', '-')} ")[2].partition(" --")[0]
        if isinstance(spec.default, int | float) and not isinstance(spec.default, bool):
            assert f"[default: {spec.default}]" in entry


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["phase1", "--reg=ema-varience"], 2, ["ema-varience", "did you mean 'ema-variance'"]),
        (["phase1", "--set=phase1.enigne=online"], 2, ["phase1.enigne", "'engine'"]),
        (["phase1", "--engine=serial"], 2, ["phase1.engine", "parallel, streams, online"]),
        (["phase1", "--max-iterations=-1"], 2, ["phase1.max_iterations", "at least 0"]),
        (["phase1", "--config=missing.toml"], 2, ["missing.toml"]),
        (["phase1", "--config=tiny"], 2, ["no such config file: tiny; did you mean preset:tiny?"]),
        (["phase1", "--embeddings=contz"], 2, ["did you mean 'counts'", "random", "FILE.safeten"]),
        (["phase1", "--embeddings=a.safetensors", "--out=b.safetensors"], 3, ["a.safetensors"]),
        (["phase1", "--data=.", "--out=b.safetensors"], 3, ["give the folder that newllm prepare"]),
        (["prepare", "--input=notes.txt", "--out=new"], 2, ["say what it is, --source text-file"]),
        (["prepare", "--input=a.csv.gz", "--out=new"], 2, ["--source rows or another"]),
        (["prepare", "--input=hub:a/b", "--out=new"], 2, ["--source rows or another"]),
        (["prepare", "--input=runs", "--out=new"], 2, ["--source text-dir or another"]),
        (["phase1", "--config=preset:huge"], 2, ["huge", "tiny"]),
        (["phase1", "--set=regularizer.gradint=live"], 2, ["regularizer.gradint", "momentum"]),
        (["phase1", "--data=nowhere"], 3, ["nowhere"]),
        (["phase1", "--sed=3"], 2, ["No such option: --sed", "--seed", "phase1 -h"]),
        (["phase1", "--preset", "tiny"], 2, ["--preset", "--config preset:tiny", "phase1 -h"]),
        (["plugins", "--preset", "tiny"], 2, ["No such option: --preset; see newllm plugins -h"]),
        (["phase1", "--seed"], 2, ["'--seed' requires an argument"]),
        (["phse1"], 2, ["'phse1'", "Did you mean 'phase1'", "newllm -h"]),
        (["plugins", "chek"], 2, ["'chek'", "plugins -h"]),
        (["generate"], 2, ["Missing argument 'CKPT'", "generate -h"]),
        (["analyze", "a", "b"], 2, ["extra argument", "b"]),
        (["phase2", "missing.safetensors"], 3, ["missing.safetensors"]),
        (["expand", "missing.safetensors"], 3, ["missing.safetensors"]),
        (["analyze", "missing.safetensors"], 3, ["missing.safetensors"]),
        (["analyze", "notes.txt"], 3, ["notes.txt"]),
        (["prepare", "--source=text-file", "--input=missing.txt", "--out=new"], 3, ["missing.txt"]),
        (["prepare", "--source=text-file", "--input=empty.txt", "--out=new"], 3, ["empty.txt"]),
        (["prepare", "--source=text-file", "--input=latin1.txt", "--out=new"], 3, ["latin1.txt"]),
        (["prepare", "--source=text-fil", "--out=new"], 2, ["text-fil", "text-file"]),
        (["prepare", "--tokenizer=foreign.json", "--out=new"], 3, ["foreign.json"]),
    ],
)
def test_a_mistake_is_one_helpful_line(newllm, mistaken, monkeypatch, arguments, code, words):
    monkeypatch.chdir(mistaken)
    result = newllm(*arguments)
    assert result.code == code, result.err
    assert result.out == ""
    assert "Traceback" not in result.err
    assert len(result.err.splitlines()) == 1
    assert result.err.startswith("newllm: ")
    for word in words:
        assert word in result.err


@pytest.mark.parametrize(
    "command",
    ["analyze notes.txt", "analyze a.py --tokens notes.txt", "evaluate a --text notes.txt"],
)
def test_a_file_that_may_not_be_read_is_one_line(newllm, mistaken, monkeypatch, command):
    monkeypatch.chdir(mistaken)
    (mistaken / "a.py").write_text("def step(state, ids): return state\nstart = None\n")
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.R_OK)
    done = newllm(*command.split())
    assert (done.code, len(done.err.splitlines())) == (3, 1)
    assert "permission denied" in done.err or "no such checkpoint" in done.err


def _too_much_for_torch():
    torch.empty(1 << 46)


def _too_much_for_numpy():
    np.empty(1 << 46)


def _too_much_for_a_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has")


def _too_much_for_mps():
    raise RuntimeError("MPS backend out of memory (MPS allocated: 8.9 GB, other: 1 MB)")


@pytest.mark.parametrize(
    "allocate", [_too_much_for_torch, _too_much_for_numpy, _too_much_for_a_gpu, _too_much_for_mps]
)
def test_memory_that_runs_out_is_one_line_with_what_to_make_smaller(newllm, monkeypatch, allocate):
    monkeypatch.setattr("newllm_cli.app.app", lambda **_: allocate())
    done = newllm("phase2", "a.safetensors")
    assert (done.code, done.out, len(done.err.splitlines())) == (2, "", 1)
    assert "out of memory (" in done.err
    assert "phase2.num_streams" in done.err
    monkeypatch.setenv("NEWLLM_DEBUG", "1")
    with pytest.raises((MemoryError, RuntimeError)):
        newllm("phase2", "a.safetensors")


def test_another_error_of_torch_is_a_bug_with_a_traceback(newllm, monkeypatch):
    monkeypatch.setattr("newllm_cli.app.app", lambda **_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        newllm("phase2", "a.safetensors")


@pytest.fixture
def process(tmp_path):
    """The command line as a user runs it, in a process of its own."""
    return partial(run, cwd=tmp_path)


def test_environment_beats_file_and_flag_beats_environment(process, tmp_path):
    write_corpus(tmp_path / "corpus.txt", documents=6)
    (tmp_path / "run.toml").write_text('[data]\nsource = "text-file"\nvocab_size = 300\n')
    arguments = ["prepare", "--config=run.toml", "--input=corpus.txt", "--json"]
    arguments += ["--document-separator=\\n\\n"]
    by_file = process(*arguments, "--out=a").json["vocab_size"]
    by_environment = process(*arguments, "--out=b", NEWLLM_DATA_VOCAB_SIZE="310").json["vocab_size"]
    by_flag = process(*arguments, "--out=c", "--vocab-size=320", NEWLLM_DATA_VOCAB_SIZE="310").json[
        "vocab_size"
    ]
    assert [by_file, by_environment, by_flag] == [300, 310, 320]
    wrong = process(*arguments, "--out=d", NEWLLM_DATA_VOCABSIZE="310")
    assert wrong.code == 2
    assert "NEWLLM_DATA_VOCABSIZE" in wrong.err


def test_nothing_is_overwritten_without_being_told(process, tmp_path):
    write_corpus(tmp_path / "corpus.txt", documents=6)
    prepare = ["prepare", "--source=text-file", "--input=corpus.txt", "--vocab-size=300"]
    prepare += ["--document-separator=\\n\\n"]
    assert process(*prepare).code == 0
    again = process(*prepare)
    assert again.code == 3
    assert "--overwrite" in again.err
    assert process(*prepare, "--overwrite").code == 0
    untrained = ["phase1", "--max-iterations=0", "--context-dim=16", "--embed-dim=16"]
    assert process(*untrained).code == 0
    before = (tmp_path / "runs/phase1.safetensors").read_bytes()
    refused = process(*untrained, "--seed=1")
    assert refused.code == 3
    assert "runs/phase1.safetensors" in refused.err
    assert (tmp_path / "runs/phase1.safetensors").read_bytes() == before
    assert process(*untrained, "--seed=1", "--overwrite").code == 0
    assert (tmp_path / "runs/phase1.safetensors").read_bytes() != before


def test_json_output_is_one_document_and_progress_is_elsewhere(process, tmp_path):
    write_corpus(tmp_path / "corpus.txt", documents=6)
    result = process(
        *("prepare", "--source=text-file", "--input=corpus.txt", "--vocab-size=300", "--json"),
        "--document-separator=\\n\\n",
    )
    assert json.loads(result.out)["vocab_size"] == 300
    assert "training a tokenizer" in result.err
