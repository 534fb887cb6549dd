import dataclasses
import json

import pytest
import torch
from markov_text import checkpoint, dataset, unigram_entropy
from safetensors import safe_open

from newllm_core.analysis.analyze import analyze
from newllm_core.checkpoint import format as checkpoints
from newllm_core.config import AnalysisConfig, Config, Phase2Config, RunConfig
from newllm_core.errors import ConfigError, DivergedError, InputError
from newllm_core.training.phase2 import measure
from newllm_core.training.phase2.run import require_possible, train_phase2
from tests.few import FEW

SMALL = dataset(documents=6)
PROBES = AnalysisConfig(**FEW["analysis"])
FAST = {"epochs": 3, "learning_rate": 0.03, "num_streams": 8, "bptt": 16, "batch_tokens": 100}


def run(start, data=None, *, seed=0, saver=None, **options):
    config = Config(
        phase2=Phase2Config(**FAST | options), run=RunConfig(seed=seed), analysis=PROBES
    )
    data = data or dataset()
    require_possible(start, data, config)
    return train_phase2(start, data, config, saver=saver)


def parameters(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


KINDS = ("weight", "bias")
# Nothing reads the token that leaves the last layer.
UNREAD = {
    f"blocks.1.layers.0.{part}.{kind}"
    for part in ("norm_token", "network.to_token")
    for kind in KINDS
}


def changed(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_fine_tuning_beats_counting_tokens_and_leaves_the_given_checkpoint_alone():
    start = checkpoint()
    before = parameters(start.model)
    data = dataset()
    trained = run(start, data)
    assert trained.results["validation"]["loss"] < unigram_entropy(data.validation) - 0.3
    assert changed(before, parameters(start.model)) == set()
    assert changed(before, parameters(trained.model)) == set(before) - UNREAD
    assert trained.phase == "phase2"
    assert trained.config.phase2.learning_rate == 0.03
    assert (trained.history, trained.provenance) == (start.history, start.provenance)
    assert [entry["epoch"] for entry in trained.results["epochs"]] == [0, 1, 2, 3]
    assert all(p.requires_grad for p in trained.model.parameters())
    assert all(p.grad is None for p in trained.model.parameters())


def test_frozen_contexts_improve_the_loss_and_change_heads_only(saver, tmp_path):
    start = checkpoint()
    before = parameters(start.model)
    config = Config(phase2=Phase2Config(**FAST, freeze_context=True))
    trained = train_phase2(start, dataset(), config, saver=saver)
    heads = {"token_output.0.weight", "token_output.0.bias"}
    assert changed(before, parameters(trained.model)) == heads
    losses = [entry["validation"]["loss"] for entry in trained.results["epochs"]]
    assert losses[-1] < losses[0] - 0.1
    assert {file.name for file in tmp_path.iterdir()} == {"run.metrics.jsonl", "run.resume"}


def test_every_head_learns_in_both_modes():
    start = checkpoint(num_heads=2, phase="expand")
    for freeze in (False, True):
        results = run(start, freeze_context=freeze).results
        first, last = results["epochs"][0]["validation"], results["epochs"][-1]["validation"]
        for head in (0, 1):
            assert last["heads"][head]["loss"] < first["heads"][head]["loss"] - 0.1
        assert set(results["epochs"][-1]["terms"]) == {
            "cross-entropy",
            "cross-entropy of head 1",
            "cross-entropy of head 2",
        }


@pytest.mark.parametrize("freeze", [False, True])
def test_a_hidden_layer_of_the_head_is_trained_saved_and_copied(freeze, tmp_path):
    start = checkpoint(head_hidden=7, head_reads_token=True)
    trained = run(start, SMALL, epochs=1, freeze_context=freeze)
    moved = changed(parameters(start.model), parameters(trained.model))
    assert {n for n in moved if n.startswith("token_output")} == {
        f"token_output.0.{part}{name}"
        for part in ("", *(f"projection.{n}." for n in ("skip", "hidden", "value", "output")))
        for name in ("weight", "bias")
    } | {"token_output.0.last_token.weight"}
    path = tmp_path / "hidden.safetensors"
    checkpoints.save(trained, path, overwrite=False)
    loaded = checkpoints.load(path)
    assert changed(parameters(trained.model), parameters(loaded.model)) == set()
    loaded.model.expand_heads()
    for head in loaded.model.heads():
        assert torch.equal(
            head.projection.hidden.weight, loaded.model.heads()[-1].projection.hidden.weight
        )


@pytest.mark.parametrize("freeze", [False, True])
def test_a_seed_says_everything(freeze):
    options = {"epochs": 1, "dropout": 0.3, "freeze_context": freeze}
    first = parameters(run(checkpoint(), SMALL, **options).model)
    torch.manual_seed(99)
    assert changed(first, parameters(run(checkpoint(), SMALL, **options).model)) == set()
    assert changed(first, parameters(run(checkpoint(), SMALL, seed=1, **options).model)) != set()


def test_pretrained_embeddings_never_move_and_others_may_be_frozen():
    pretrained = checkpoint(embeddings="some.safetensors")
    kept = {"train_embeddings": False}
    for start, options in (
        (pretrained, {}),
        (checkpoint(), kept),
        (checkpoint(embeddings="counts"), kept),
    ):
        flags = {name: p.requires_grad for name, p in start.model.named_parameters()}
        before = parameters(start.model)
        trained = run(start, SMALL, epochs=1, **options)
        moved = set(before) - UNREAD - {"embedding.weight"}
        assert changed(before, parameters(trained.model)) == moved
        assert flags == {name: p.requires_grad for name, p in trained.model.named_parameters()}


def test_tied_weights_stay_tied_and_are_stored_once(tmp_path):
    trained = run(checkpoint(tie_weights=True), SMALL, epochs=1)
    assert trained.model.token_output[-1].weight is trained.model.embedding.weight
    path = tmp_path / "tied.safetensors"
    checkpoints.save(trained, path, overwrite=False)
    with safe_open(path, framework="pt") as file:
        assert "embedding.weight" in file.keys()  # noqa: SIM118
        assert "token_output.0.weight" not in file.keys()  # noqa: SIM118
    loaded = checkpoints.load(path)
    assert loaded.model.token_output[-1].weight is loaded.model.embedding.weight
    assert changed(parameters(trained.model), parameters(loaded.model)) == set()
    again = run(loaded, SMALL, epochs=1)
    assert again.model.token_output[-1].weight is again.model.embedding.weight


def test_a_head_tied_to_embeddings_that_are_not_trained_keeps_its_matrix():
    start = checkpoint(tie_weights=True)
    before = parameters(start.model)
    trained = run(start, SMALL, epochs=1, train_embeddings=False)
    moved = changed(before, parameters(trained.model))
    assert "embedding.weight" not in moved
    assert "token_output.0.bias" in moved


def test_an_objective_is_trained_beside_the_heads_and_saved(tmp_path):
    trained = run(checkpoint(cell="gated"), objective="reconstruction", objective_weight=1.0)
    first, last = trained.results["epochs"][1]["terms"], trained.results["epochs"][-1]["terms"]
    assert last["reconstruction"] < first["reconstruction"]
    assert last["cross-entropy"] < first["cross-entropy"]
    path = tmp_path / "r.safetensors"
    checkpoints.save(trained, path, overwrite=False)
    loaded = checkpoints.load(path).objective
    assert set(loaded) == {f"{part}.{kind}" for part in ("hidden", "output") for kind in KINDS}
    assert all(torch.equal(loaded[name], trained.objective[name]) for name in loaded)
    assert loaded["output.bias"].abs().min() > 0


def test_early_stopping_keeps_the_best_weights(monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    seen = []
    evaluate_splits = measure.evaluate_splits

    def scripted(model, dataset, **options):
        figures = evaluate_splits(model, dataset, **options)
        figures["validation"]["loss"] = next(losses)
        seen.append(parameters(model))
        return figures

    monkeypatch.setattr(measure, "evaluate_splits", scripted)
    trained = run(checkpoint(), SMALL, epochs=10, patience=2)
    assert trained.results["best_epoch"] == 1
    assert trained.results["validation"]["loss"] == 2.0
    assert len(seen) == 4
    assert changed(seen[1], parameters(trained.model)) == set()
    assert changed(seen[3], parameters(trained.model)) != set()


def test_no_epochs_report_the_model_as_it_is():
    start = checkpoint()
    trained = run(start, epochs=0)
    assert changed(parameters(start.model), parameters(trained.model)) == set()
    assert trained.results["best_epoch"] == 0
    assert trained.results["train"]["loss"] > 0
    with pytest.raises(InputError, match="no trained head"):
        trained.require_trained_head()
    again = run(run(start, epochs=1), epochs=0)
    again.require_trained_head()


def test_train_figures_cover_no_more_than_validation():
    results = run(checkpoint(), epochs=0).results
    assert results["validation"]["num_tokens"] == 300
    assert results["train"]["num_tokens"] == 300


@pytest.mark.parametrize("freeze", [False, True])
def test_max_tokens_bounds_what_is_read(saver, freeze):
    run(checkpoint(), epochs=1, freeze_context=freeze, max_tokens=320, saver=saver)
    events = [json.loads(line) for line in saver.log.path.read_text().splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    # 8 streams of 40 tokens make windows of 16, 16, 8; batches of 100 make four.
    assert len(steps) == (4 if freeze else 3)
    assert [e["epoch"] for e in events if e["event"] == "epoch"] == [0, 1]


@pytest.mark.parametrize("freeze", [False, True])
def test_divergence_names_the_step_and_the_term(freeze):
    with pytest.raises(DivergedError, match=r"is not finite \(step \d+ of"):
        run(checkpoint(), learning_rate=1e38, warmup_fraction=0.0, freeze_context=freeze)


def test_a_model_that_is_not_finite_is_refused_before_training():
    start = checkpoint()
    with torch.no_grad():
        start.model.token_output[0].bias[0] = float("nan")
    with pytest.raises(DivergedError, match="after epoch 0"):
        run(start)


def test_contradictions_are_one_line():
    with pytest.raises(ConfigError, match="tied to the embedding"):
        run(checkpoint(tie_weights=True), freeze_context=True)
    with pytest.raises(ConfigError, match=r"phase2\.head_dropout is of the hidden layer"):
        run(checkpoint(), head_dropout=0.1)
    for name, extra in (
        ("objective", {"objective_weight": 1.0}),
        ("objective", {"objective": "reconstruction"}),
        ("reg", {"reg_weight": 0.1}),
        ("reg", {"reg": "distribution"}),
    ):
        with pytest.raises(ConfigError, match=rf"phase2\.{name} shapes contexts"):
            run(checkpoint(), freeze_context=True, **extra)
    with pytest.raises(InputError, match="another tokenizer"):
        run(dataclasses.replace(checkpoint(), tokenizer_json='{"other": 1}'))


def test_a_full_disk_is_said_beforehand(monkeypatch):
    from newllm_core.training.phase2 import context_store

    full = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(context_store.shutil, "disk_usage", lambda _: full)
    with pytest.raises(InputError, match="--max-tokens"):
        run(checkpoint(), freeze_context=True)


def with_probes(start):
    rows = torch.from_numpy(SMALL.validation.tokens[:240].astype("int64")).view(4, 60)
    start.probes = {"train": rows.clone(), "validation": rows}
    return start


def test_every_epoch_says_what_became_of_the_memory():
    """The same figures as an analysis of the weights that were kept, at that epoch."""
    trained = run(with_probes(checkpoint()), SMALL, epochs=2, learning_rate=0.03)
    epochs = trained.results["epochs"]
    trained.tokenizer_json = ""
    report = analyze(trained, checkpoint_path="x", with_control=False)["validation"]
    kept = epochs[trained.results["best_epoch"]]["memory"]
    assert kept == {
        "effective_rank_ratio": pytest.approx(report["effective_rank_ratio"], rel=1e-5),
        "lyapunov_exponent": pytest.approx(report["lyapunov_exponent"]["mean"], rel=1e-4),
        "tokens_remembered": pytest.approx(report["token_memory"]["total"], rel=1e-4),
    }
    # Blocks change, and so does what they remember.
    assert len({entry["memory"]["lyapunov_exponent"] for entry in epochs}) == 3
    frozen = run(with_probes(checkpoint()), SMALL, epochs=1, freeze_context=True)
    assert "memory" not in frozen.results["epochs"][0]


def test_a_term_is_measured_on_validation_text_every_epoch():
    given = {"objective": "reconstruction", "objective_weight": 1.0, "learning_rate": 0.03}
    trained = run(with_probes(checkpoint()), SMALL, epochs=2, **given)
    losses = [entry["validation_terms"]["reconstruction"] for entry in trained.results["epochs"]]
    assert losses[2] < losses[1] < losses[0]
    trained_on = trained.results["epochs"][2]["terms"]["reconstruction"]
    assert losses[2] == pytest.approx(trained_on, rel=0.5)


def test_epochs_read_a_part_of_validation_and_the_end_all_of_it():
    trained = run(checkpoint(), SMALL, epochs=2, eval_tokens=120)
    counts = [entry["validation"]["num_tokens"] for entry in trained.results["epochs"]]
    assert counts == [100, 100, 100]  # whole documents of 50
    assert [entry["train"]["num_tokens"] for entry in trained.results["epochs"]] == counts
    assert trained.results["validation"]["num_tokens"] == 300
    whole = run(checkpoint(), SMALL, epochs=2)
    best = whole.results["epochs"][trained.results["best_epoch"]]["validation"]["loss"]
    assert trained.results["validation"]["loss"] == pytest.approx(best, rel=1e-5)
