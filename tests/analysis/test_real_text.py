"""Verdicts and predictions on text that no threshold was chosen on: plays in verse, not articles.

Thresholds were chosen on WikiText-2 with models of 256 dimensions; these have 64 and read
Shakespeare through a vocabulary of 1,024.
"""

import copy
from pathlib import Path

import pytest
import torch

from newllm_core.analysis.analyze import analyze
from newllm_core.config import AnalysisConfig, Config, DataConfig, ModelConfig, Phase1Config
from newllm_core.data.prepare import prepare
from newllm_core.data.prepared import open_dataset
from newllm_core.pipeline.runs import run_phase1
from newllm_core.training.resume import Output

TEXT = Path(__file__).parents[2].parent / "shared" / "data" / "tinyshakespeare" / "input.txt"
SHAPE = {"context_dim": 64, "embed_dim": 64}

pytestmark = pytest.mark.skipif(not TEXT.is_file(), reason=f"there is no {TEXT}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("shakespeare")


@pytest.fixture(scope="module")
def dataset(folder):
    config = DataConfig(source="text-file", input=str(TEXT), vocab_size=1024)
    prepare(Config(data=config, source={"document_separator": "\n\n"}), folder / "data")
    return open_dataset(folder / "data")


@pytest.fixture(scope="module")
def make(folder, dataset):
    def run(*, model=None, **phase1):
        config = Config(
            model=ModelConfig(**(SHAPE | (model or {}))),
            cell={"hidden_dim": 128},
            phase1=Phase1Config(max_tokens=8192, convergence_tokens=2048, **phase1),
            analysis=AnalysisConfig(probe_tokens=4096, probe_passages=16, dynamics_steps=200),
        )
        output = Output(folder / "checkpoint.safetensors", overwrite=True)
        return run_phase1(config, dataset, output, device=torch.device("cpu"))

    return run


@pytest.fixture(scope="module")
def trained(make):
    return make(dist_reg_weight=0.8, max_iterations=10)


def examined(checkpoint):
    report = analyze(checkpoint, checkpoint_path="x", with_control=False)
    found = {}
    for verdict in report["verdicts"]:
        found.setdefault(verdict["section"], set()).add(verdict["status"])
    return report, found


def agree(report):
    for split in ("train", "validation"):
        sweeps = report[split]["sweeps"]
        assert -0.5 < report[split]["lyapunov_exponent"]["mean"] < -0.05
        for tolerance, predicted in sweeps["predicted"].items():
            assert sweeps["measured"][tolerance] == pytest.approx(predicted, rel=0.3)


def test_a_trained_model_is_healthy_and_predicted(trained):
    report, found = examined(trained)
    assert all(statuses == {"healthy"} for statuses in found.values()), found
    agree(report)


@pytest.mark.slow
def test_another_trained_model_is_healthy_and_predicted(make):
    report, found = examined(make(dist_reg_weight=0.9, max_iterations=10))
    assert all(statuses == {"healthy"} for statuses in found.values()), found
    agree(report)


def test_a_gated_model_of_long_memory_is_predicted(make):
    checkpoint = make(model={"cell": "gated", "layer_structure": (1,)}, max_iterations=0)
    with torch.no_grad():
        checkpoint.model.cells()[0].gate.bias.fill_(2.0)
    report, _ = examined(checkpoint)
    assert report["train"]["memory_horizon"] > 10
    agree(report)


def test_contexts_collapsed_to_three_dimensions_are_degenerate(trained):
    checkpoint = copy.deepcopy(trained)
    norm = checkpoint.model.cells()[-1].norm_context
    with torch.no_grad():
        norm.weight[3:] = 0
        norm.bias[3:] = 0
    report, found = examined(checkpoint)
    assert report["train"]["actual_rank"] == 3
    assert found["information_content"] == {"degenerate"}


def test_a_recurrence_that_ignores_tokens_is_degenerate(trained):
    checkpoint = copy.deepcopy(trained)
    with torch.no_grad():
        for cell in checkpoint.model.cells():
            for part in (cell.network.to_context, cell.network.to_token):
                part.weight[:, SHAPE["context_dim"] :] = 0
    report, found = examined(checkpoint)
    assert found["token_dependency"] == {"degenerate"}
    assert found["memory"] == {"degenerate"}
    assert report["train"]["token_memory"]["total"] < 0.05


def test_a_chaotic_recurrence_is_degenerate(make):
    deep = {"layer_structure": (1,) * 6, "init_std": 0.3}
    report, found = examined(make(model=deep, max_iterations=0))
    assert report["train"]["lyapunov_exponent"]["mean"] > 0.2
    assert found["dynamics"] == {"degenerate"}
    # What a random network does well hides nothing.
    assert found["information_content"] == {"healthy"}
