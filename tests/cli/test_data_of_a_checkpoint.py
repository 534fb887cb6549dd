"""What a checkpoint was trained on, and what is taken for it where nothing is said."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from newllm_core.checkpoint.format import load
from newllm_core.data.prepared import open_dataset
from tests.cli.conftest import write_corpus
from tests.few import FEW_FLAGS
from tests.open_gate import OPEN

MODEL = ("--context-dim=8", "--embed-dim=8", "--max-iterations=2", "--max-tokens=200")
SHORT = ("--epochs=1", "--max-tokens=200", *OPEN)
SOURCE = ("--source=text-file", "--document-separator=\\n\\n", "--val-fraction=0.1")


@pytest.fixture
def begun(newllm):
    """The command line beside data, and a checkpoint of Phase 1 on its beginning."""
    write_corpus(Path("one.txt"), documents=60)
    write_corpus(Path("other.txt"), documents=30)
    made = newllm("prepare", *SOURCE, "--input=one.txt", "--vocab-size=300", "--out=data")
    assert made.code == 0, made.err
    done = newllm("phase1", "--data=data", *MODEL, *FEW_FLAGS, "--out=a.safetensors")
    assert done.code == 0, done.err
    return newllm


def prepare_other(newllm, out):
    again = ("--input=other.txt", "--tokenizer=data/tokenizer.json", f"--out={out}")
    done = newllm("prepare", *SOURCE, *again, "--val-token-policy=keep")
    assert done.code == 0, done.err


def test_training_is_judged_on_text_that_was_trained_on(begun):
    found = load(Path("a.safetensors"))
    read = open_dataset("data").train.tokens[:200].astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(read, found.probes["train"].shape[1])
    for passage in found.probes["train"].numpy():
        assert (windows == passage).all(axis=1).any()


def test_settings_of_data_are_those_it_was_prepared_with(begun, monkeypatch):
    assert load(Path("a.safetensors")).config.data.vocab_size == 300
    again = ("phase1", "--data=data", *MODEL, *FEW_FLAGS, "--out=b.safetensors")
    refused = begun(*again, "--set=data.vocab_size=301")
    assert refused.code == 2
    assert "data.vocab_size is 301, data was prepared with 300" in refused.err
    monkeypatch.setenv("NEWLLM_DATA_VOCAB_SIZE", "301")
    warned = begun(*again)
    assert warned.code == 0
    assert "warning: data.vocab_size is 301, data was prepared with 300" in warned.err
    assert load(Path("b.safetensors")).config.data.vocab_size == 300


def test_phase2_is_remembered_with_its_own_data(begun):
    prepare_other(begun, "more")
    done = begun("phase2", "a.safetensors", "--data=more", *SHORT, "--out=b.safetensors")
    assert done.code == 0, done.err
    known = load(Path("b.safetensors")).provenance
    assert known["dataset_path"].endswith("more")
    (source,) = (p for p in known["plugins"] if p["kind"] == "data source")
    assert source["input"] == "other.txt"
    own, asked, other = (
        begun("evaluate", "b.safetensors", *where, "--json").json["validation"]["loss"]
        for where in ((), ("--data=more",), ("--data=data",))
    )
    assert own == asked != other


def test_data_that_was_prepared_again_is_not_taken_for_what_was_there(begun):
    prepare_other(begun, "more")
    shutil.move("data", "old")
    shutil.move("more", "data")
    refused = begun("phase2", "a.safetensors", *SHORT, "--out=b.safetensors")
    assert refused.code == 3
    assert "data is not what the checkpoint was trained on" in refused.err
    assert begun("phase2", "a.safetensors", "--data=data", *SHORT, "--out=b.safetensors").code == 0


def test_phase2_has_the_objective_and_the_options_of_phase1(begun, monkeypatch):
    base = ("phase1", "--data=data", *MODEL, *FEW_FLAGS, "--objective=reconstruction")
    options = ("--set=objective.decoder=linear", "--set=objective.context_weight=.5")
    assert begun(*base, *options, "--out=r.safetensors").code == 0
    monkeypatch.setenv("NEWLLM_PHASE1_OBJECTIVE", "cvfp")
    given = ("--data=data", *SHORT, "--set=phase2.objective_weight=.1", "--out=p.safetensors")
    assert begun("phase2", "r.safetensors", *given).code == 0
    config = load(Path("p.safetensors")).config
    assert config.phase1.objective == "reconstruction"
    assert (config.objective["decoder"], config.objective["context_weight"]) == ("linear", 0.5)


def test_phase2_keeps_the_passages_that_phase1_chose(begun):
    given = ("phase2", "a.safetensors", "--data=data", *SHORT, "--out=p.safetensors")
    refused = begun(*given, "--set=analysis.probe_tokens=100")
    assert refused.code == 2
    refused.one_line("analysis.probe_tokens is 256 in this checkpoint and cannot become 100")
    assert begun(*given, "--set=analysis.probe_passages=4").code == 0
    first, second = (load(Path(f"{name}.safetensors")).config.analysis for name in "ap")
    assert (first.probe_tokens, first.warmup_tokens) == (256, 16)
    assert (second.probe_tokens, second.warmup_tokens) == (256, 16)
    refused = begun("analyze", "p.safetensors", "--set=analysis.warmup_tokens=3")
    assert refused.code == 2
    refused.one_line("analysis.warmup_tokens is 16 in this checkpoint and cannot become 3")


def test_beside_other_networks_checkpoints_keep_their_passages(begun):
    Path("step.py").write_text(
        "import torch\nstart = torch.zeros(1, 4)\n\n\n"
        "def step(state, ids):\n    return state / 2 + ids[:, None]\n"
    )
    np.save("ids.npy", np.arange(2000) % 7)
    asked = ("--set=analysis.probe_tokens=128", *(f for f in FEW_FLAGS if "analysis.d" in f))
    done = begun("compare", "a.safetensors", "step.py", "--tokens=ids.npy", *asked, "--json")
    assert done.code == 0, done.err
    tokens = [entry["train"]["num_tokens"] for entry in done.json["checkpoints"]]
    whole = begun("analyze", "a.safetensors", "--json").json["train"]["num_tokens"]
    assert tokens[0] == whole > 128 >= tokens[1]
    refused = begun("compare", "a.safetensors", "a.safetensors", *asked)
    refused.one_line("analysis.probe_tokens is 256 in this checkpoint and cannot become 128")


def test_a_name_that_is_taken_back_leaves_phase1s_options(begun):
    options = ("--reg=covariance-ema", "--set=regularizer.momentum=0.97", "--out=c.safetensors")
    assert begun("phase1", "--data=data", *MODEL, *FEW_FLAGS, *options).code == 0
    Path("file.toml").write_text('[phase2]\nreg = "ema-variance"\n')
    given = ("phase2", "c.safetensors", "--data=data", *SHORT, "--config=file.toml")
    assert begun(*given, "--reg=", "--reg-weight=.1", "--out=d.safetensors").code == 0
    plugins = load(Path("d.safetensors")).provenance["plugins"]
    (record,) = (record for record in plugins if record.get("phase") == "phase2")
    assert (record["name"], record["options"]["momentum"]) == ("covariance-ema", 0.97)


def test_another_regularizer_of_phase2_has_options_of_its_own(begun):
    options = ("--reg=covariance-ema", "--set=regularizer.momentum=0.97", "--out=c.safetensors")
    made = begun("phase1", "--data=data", *MODEL, *FEW_FLAGS, *options)
    assert made.code == 0, made.err
    given = ("phase2", "c.safetensors", "--data=data", *SHORT, "--reg=ema-variance")
    records = {}
    for name, momentum in (("own", []), ("asked", ["--set=regularizer.momentum=0.5"])):
        assert begun(*given, "--reg-weight=.1", *momentum, f"--out={name}.safetensors").code == 0
        saved = load(Path(f"{name}.safetensors"))
        assert saved.config.regularizer["momentum"] == 0.97  # Phase 1's stay
        plugins = saved.provenance["plugins"]
        (records[name],) = (record for record in plugins if record.get("phase") == "phase2")
    assert records["own"]["name"] == records["asked"]["name"] == "ema-variance"
    assert records["own"]["options"]["momentum"] == 0.99
    assert records["asked"]["options"]["momentum"] == 0.5


def test_a_run_that_was_given_what_it_has_anyway_goes_on(begun):
    given = ("phase2", "a.safetensors", "--data=data", *SHORT, "--out=p.safetensors")
    assert begun(*given, "--set=cell.layernorm_mix=1").code == 0
    assert begun(*given, "--resume").code == 0


def test_a_control_that_cannot_be_measured_leaves_nothing(begun):
    explodes = ("--max-iterations=0", "--init-std=1e38", "--out=e.safetensors")
    done = begun("phase1", "--data=data", "--context-dim=8", *FEW_FLAGS, *explodes)
    assert done.code == 5, done.err
    assert list(Path().glob("e.*")) == []
