import dataclasses
import json

import pytest
import torch

from newllm_core.analysis.analyze import analyze, token_text
from newllm_core.analysis.criteria import SECTIONS
from newllm_core.config import ModelConfig
from newllm_core.errors import DivergedError, InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Silent
from newllm_core.settings import Settings
from tests.generation.cases import TOKENIZERS

from . import planted

SPLIT_KEYS = {
    "num_tokens",
    "context_dim",
    "effective_rank",
    "effective_rank_ratio",
    "effective_rank_ceiling_ratio",
    "actual_rank",
    "top_singular_values",
    "norm",
    "pairwise_l2",
    "pairwise_cosine",
    "dimension_mean",
    "dimension_variance",
    "sparsity",
    "converged_ratio",
    "identity_cosine",
    "token_dependency",
    "singular_vectors",
    "spectrum",
    "cosine_histogram",
    "lyapunov_exponent",
    "memory_horizon",
    "echo_state",
    "sweeps",
    "repeat_drift",
    "token_memory",
    "memory_capacity",
    "lyapunov_spectrum",
    "along_text",
    "contributions",
    "jacobian",
}


def statuses(checkpoint, **options):
    report = analyze(
        checkpoint, checkpoint_path="x.safetensors", **{"with_control": False} | options
    )
    found = {(v["section"], v["split"]): v["status"] for v in report["verdicts"]}
    for section in SECTIONS:
        # Of validation text a lower rank is let through.
        if section != "information_content":
            assert found[section, "train"] == found[section, "validation"], section
    return {section: found[section, "train"] for section in SECTIONS}, report


def test_a_healthy_model_is_healthy_everywhere(device):
    checkpoint = planted.checkpoint_of(planted.healthy())
    checkpoint.model.to(device)
    found, report = statuses(checkpoint)
    assert set(found.values()) == {"healthy"}
    train = report["train"]
    assert train["effective_rank_ratio"] > 0.9
    assert abs(train["pairwise_cosine"]["mean"]) < 0.05
    assert train["identity_cosine"]["mean"] == pytest.approx(0.5, abs=0.05)
    assert train["norm"]["mean"] == pytest.approx(planted.CONTEXT**0.5, rel=1e-3)


@pytest.mark.parametrize(
    ("make", "section"),
    [
        (lambda: planted.collapsed_to_rank(3), "information_content"),
        (planted.nearly_zero, "zero_solution"),
        (planted.identity_mapping, "identity_mapping"),
        (planted.ignoring_tokens, "token_dependency"),
        (planted.attractor, "global_attractor"),
    ],
)
def test_planted_failures_are_degenerate(make, section):
    found, _ = statuses(planted.checkpoint_of(make()))
    assert found[section] == "degenerate"
    # Whatever became of the memory, the blocks were trained.
    assert found["training"] == "healthy"


def test_each_failure_is_told_from_the_others():
    collapsed, report = statuses(planted.checkpoint_of(planted.collapsed_to_rank(3)))
    assert report["train"]["actual_rank"] == 3
    assert report["train"]["effective_rank"] == pytest.approx(3, abs=0.1)
    assert collapsed["zero_solution"] == collapsed["token_dependency"] == "healthy"
    zero, _ = statuses(planted.checkpoint_of(planted.nearly_zero()))
    # So short a context is forgotten with the next token: nothing but that can be read from it.
    assert [section for section, status in zero.items() if status != "healthy"] == [
        "zero_solution",
        "memory",
    ]
    identity, _ = statuses(planted.checkpoint_of(planted.identity_mapping()))
    assert identity["global_attractor"] == identity["information_content"] == "healthy"


def test_an_untrained_model_has_rank_but_no_history():
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig(context_dim=64, embed_dim=64), planted.VOCAB)
    checkpoint = planted.checkpoint_of(model, history=[])
    found, report = statuses(checkpoint, with_control=True)
    assert found["training"] == "degenerate"
    assert report["training"]["weight_change"] == 0
    assert found["information_content"] != "degenerate"
    # The control of an untrained model is that model.
    assert report["random_control"]["train"] == report["train"]
    assert report["random_control"]["validation"] == report["validation"]


def test_vacuous_terms_reach_the_report():
    checkpoint = planted.checkpoint_of(planted.healthy(), vacuous=["ema-variance"])
    found, report = statuses(checkpoint)
    assert found["training"] == "weak"
    assert report["training"]["vacuous_terms"] == ["ema-variance"]
    assert report["convergence"]["vacuous_terms"] == ["ema-variance"]
    assert len(report["convergence"]["history"]) == 3


def test_the_report_is_complete_and_fits_json():
    history = [*planted.good_history(), {"sweep_terms": {"cvfp": float("inf")}}]
    model = planted.healthy()
    before = {name: p.clone() for name, p in model.named_parameters()}
    report = analyze(
        planted.checkpoint_of(model, history=history), checkpoint_path="a/b.safetensors"
    )
    again = json.loads(json.dumps(report, allow_nan=False))
    assert again == report
    assert list(report) == [
        "schema",
        "checkpoint",
        "phase",
        "missing_plugins",
        "training",
        "convergence",
        "epochs",
        "train",
        "validation",
        "random_control",
        "differences",
        "verdicts",
    ]
    assert (report["schema"], report["checkpoint"]) == (1, "a/b.safetensors")
    for split in (report["train"], report["validation"], *report["random_control"].values()):
        assert set(split) == SPLIT_KEYS
        assert split["num_tokens"] == planted.PASSAGES * planted.LENGTH
        assert len(split["dimension_mean"]) == len(split["dimension_variance"]) == planted.CONTEXT
        assert set(split["norm"]) == {"mean", "median", "std", "min", "max"}
        assert set(split["pairwise_l2"]) == set(split["norm"]) | {"stderr", "num_pairs"}
        assert len(split["top_singular_values"]) == len(split["singular_vectors"]) == 5
        for vector in split["singular_vectors"]:
            assert all(token["text"] == f"w{token['id']}" for token in vector["tokens"])
            loadings = [token["loading"] for token in vector["tokens"]]
            assert loadings == sorted(loadings, reverse=True)
            assert loadings[-1] > 0
    wanted = {"section", "split", "status", "value", "threshold", "message", "healthy_if"}
    assert all(set(verdict) == wanted for verdict in report["verdicts"])
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_the_same_seed_gives_the_same_report():
    checkpoint = planted.checkpoint_of(planted.healthy())
    assert analyze(checkpoint, checkpoint_path="runs/a.safetensors") == planted.healthy_report()


def test_splits_of_different_size_are_judged_on_equal_numbers_of_tokens():
    probes = planted.random_probes()
    probes["train"] = probes["train"][:, : planted.WARMUP + 50]
    checkpoint = planted.checkpoint_of(planted.healthy(), probes=probes)
    report = analyze(checkpoint, checkpoint_path="x", with_control=False)
    assert (
        report["train"]["num_tokens"] == report["validation"]["num_tokens"] == planted.PASSAGES * 50
    )


def test_options_decide_how_much_is_looked_at():
    analysis = dataclasses.replace(planted.ANALYSIS, num_pairs=77, num_singular_vectors=2)
    checkpoint = planted.checkpoint_of(planted.healthy(), analysis=analysis)
    train = analyze(checkpoint, checkpoint_path="x", with_control=False)["train"]
    assert train["pairwise_l2"]["num_pairs"] == 77
    assert len(train["top_singular_values"]) == 2


def test_settings_can_be_given():
    checkpoint = planted.checkpoint_of(planted.healthy())
    analysis = dataclasses.asdict(planted.ANALYSIS) | {"num_pairs": 77}
    first, second = (
        analyze(checkpoint, checkpoint_path="x", with_control=False, given=given)["train"]
        for given in (Settings(None, {"analysis": analysis, "run": {"seed": s}}) for s in (1, 2))
    )
    assert first["pairwise_l2"]["num_pairs"] == 77
    assert first["pairwise_l2"]["mean"] != second["pairwise_l2"]["mean"]
    assert first["effective_rank"] == second["effective_rank"]


def test_a_control_that_explodes_has_no_figures(monkeypatch):
    model = planted.healthy()
    broken = planted.healthy()
    with torch.no_grad():
        broken.cells()[0].network.to_context.bias.fill_(float("inf"))
    monkeypatch.setattr(model, "untrained", lambda: broken)
    warnings = []
    progress = Silent()
    progress.warning = warnings.append
    report = analyze(planted.checkpoint_of(model), checkpoint_path="x", progress=progress)
    assert report["random_control"] == {"train": None, "validation": None}
    assert len(warnings) == 2
    with pytest.raises(DivergedError):
        analyze(planted.checkpoint_of(broken), checkpoint_path="x")


def test_progress_counts_every_token_that_is_read():
    class Counting(Silent):
        def __init__(self):
            self.total, self.read, self.messages = None, 0, []

        def message(self, text):
            self.messages.append(text)

        def task(self, label, total, unit):
            self.total = total
            return self

        def __enter__(self):
            return self

        def __exit__(self, *exc):
            return None

        def advance(self, amount, note=""):
            self.read += amount

    progress = Counting()
    checkpoint = planted.checkpoint_of(planted.healthy())
    analyze(checkpoint, checkpoint_path="x", progress=progress)
    rows = 2 * 2 * planted.PASSAGES
    # Read once; then perturbed, restarted twice, swept at 8 places and repeated.
    steps = checkpoint.config.analysis.dynamics_steps
    for_health = rows * (16 + 320 + (4 + 8) * steps + 6 * 32)
    # Four passages twice with eight vectors each, and as many contexts.
    of_spectrum = 2 * 2 * 4 * 2 * steps * 8 * 2
    assert progress.read == progress.total == for_health + of_spectrum
    assert f"{progress.total:,} tokens" in progress.messages[0]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_control_tokens_are_shown_by_their_names(kind):
    tokenizer = TOKENIZERS[kind]()
    shows = token_text(tokenizer.to_json())
    shown = {shows(id) for id in range(tokenizer.vocab_size) if tokenizer.is_control(id)}
    assert shown == {"<|endoftext|>", "<|user|>", "<|assistant|>"}


def test_tokens_without_a_tokenizer_keep_their_number():
    checkpoint = planted.checkpoint_of(planted.healthy())
    checkpoint.tokenizer_json = ""
    report = analyze(checkpoint, checkpoint_path="x", with_control=False)
    token = report["train"]["singular_vectors"][0]["tokens"][0]
    assert token["text"] == f"#{token['id']}"
    checkpoint.tokenizer_json = "no tokenizer"
    with pytest.raises(InputError, match="tokenizer cannot be read"):
        analyze(checkpoint, checkpoint_path="x")
