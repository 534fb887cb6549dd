"""An objective or a regularizer as one more term of Phase 2, and what Phase 1 left for it."""

import dataclasses

import numpy as np
import pytest
import torch
from markov_text import checkpoint, dataset

from newllm_core.checkpoint.format import load
from newllm_core.data.prepared import open_dataset
from newllm_core.errors import ConfigError
from newllm_core.pipeline.runs import run_phase1, run_phase2
from newllm_core.settings import resolve, to_dict
from newllm_core.training.phase2.extra_terms import ExtraTerms, make_objective
from newllm_core.training.phase2.run import train_phase2
from newllm_core.training.resume import Output
from tests.data.cases import run as prepare
from tests.open_gate import OPEN_GATE


def phase2_of(start, *, phase1=None, options=None, of_regularizer=None, **phase2):
    fast = {"epochs": 1, "num_streams": 8, "learning_rate": 0.03}
    layer = {"phase2": fast | phase2, "phase1": phase1 or {}, "objective": options or {}}
    config = resolve(layer | {"regularizer": of_regularizer or {}})
    return train_phase2(start, dataset(documents=6), config)


def trained_decoder(start, **options):
    config = resolve({"objective": options})
    objective, _ = make_objective("reconstruction", config, start.model)
    return {name: tensor + 0.5 for name, tensor in objective.state_dict().items()}


def test_phase2_goes_on_with_the_objective_that_phase1_trained():
    start = checkpoint()
    start.objective = trained_decoder(start)
    kept = phase2_of(start, epochs=0, objective="reconstruction").objective
    assert set(kept) == set(start.objective)
    assert all(torch.equal(kept[name], start.objective[name]) for name in kept)
    moved = phase2_of(start, objective="reconstruction").objective
    assert not any(torch.equal(moved[name], start.objective[name]) for name in kept)
    assert all((moved[name] - kept[name]).abs().max() < 1 for name in kept)
    untouched = phase2_of(start).objective
    assert all(torch.equal(untouched[name], start.objective[name]) for name in kept)


def test_another_objective_than_phase1s_starts_anew_and_leaves_its_parameters_alone():
    start = checkpoint(objective={"of another": torch.ones(3)})
    given = {"phase1": {"objective": "cvfp"}, "options": {"teacher": "same-weights"}}
    trained = phase2_of(start, **given, objective="reconstruction")
    assert trained.results["epochs"][-1]["terms"]["reconstruction"] > 0
    assert trained.objective == start.objective


def test_other_options_than_phase1s_are_one_line():
    start = checkpoint()
    start.objective = trained_decoder(start)
    with pytest.raises(ConfigError, match="does not fit what phase 1 trained") as caught:
        phase2_of(start, objective="reconstruction", options={"decoder": "linear"})
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("teacher", ["reading-before", "same-weights"])
@pytest.mark.parametrize(
    "chosen", [{"objective": "cvfp"}, {"objective_weight": 0.5}], ids=["named", "of phase 1"]
)
def test_phase2_refuses_an_objective_that_needs_another_reading(teacher, chosen):
    given = {"phase1": {"objective": "cvfp"}, "options": {"teacher": teacher}}
    with pytest.raises(
        ConfigError, match=r"phase2\.objective = cvfp reads '(previous|second_)"
    ) as c:
        phase2_of(checkpoint(), **given, **chosen)
    assert c.value.exit_code == 2


@pytest.mark.parametrize(
    ("chosen", "term", "weight"),
    [
        ({"reg_weight": 0.3}, "distribution", 0.3),
        ({"reg": "distribution"}, "distribution", 0.2),
        ({"reg": "ema-variance", "reg_weight": 0.1}, "ema-variance", 0.1),
        ({"objective_weight": 0.4}, "reconstruction", 0.4),
        ({"objective": "reconstruction"}, "reconstruction", 1.0),
    ],
)
def test_a_weight_alone_means_phase1s_plugin_and_a_name_alone_its_own_weight(chosen, term, weight):
    config = resolve({"phase1": {"reg": "distribution"}, "phase2": chosen})
    assert ExtraTerms(config, checkpoint().model, {}).weights == {term: weight}


@pytest.mark.parametrize("chosen", [{}, {"reg": "distribution", "reg_weight": 0}])
def test_without_a_weight_there_is_no_term(chosen):
    extra = ExtraTerms(resolve({"phase2": chosen}), checkpoint().model, {})
    assert not extra.weights
    assert extra.objective_state() == {}


def test_a_regularizer_as_a_term_changes_contexts():
    models, losses = [], []
    for chosen in ({}, {"reg": "distribution", "reg_weight": 1.0}):
        trained = phase2_of(checkpoint(), **chosen, of_regularizer={"momentum": 0.9})
        models.append(trained.model)
        losses.append(trained.results["epochs"][-1]["terms"])
    assert [list(terms) for terms in losses] == [
        ["cross-entropy"],
        ["cross-entropy", "distribution"],
    ]
    tokens = torch.from_numpy(dataset(documents=2).validation.tokens[:200].astype(np.int64))
    spread = []
    for model in models:
        contexts = model.step(context=torch.zeros(200, 16), token=model.embed(tokens))[-1]
        mean, variance = contexts.mean(0), contexts.var(0)
        spread.append(((mean**2) + (variance - 1) ** 2).mean().item())
    assert spread[1] < 0.8 * spread[0]


def test_options_that_no_chosen_plugin_knows_are_still_refused():
    with pytest.raises(ConfigError, match=r"unknown key regularizer\.momentun of regularizer"):
        phase2_of(checkpoint(), reg="distribution", of_regularizer={"momentun": 0.9})
    config = dataclasses.replace(resolve(), objective={"teecher": "x"})
    config = dataclasses.replace(
        config,
        phase1=dataclasses.replace(config.phase1, objective="cvfp"),
        phase2=dataclasses.replace(config.phase2, objective="reconstruction"),
    )
    with pytest.raises(ConfigError, match=r"unknown key objective\.teecher of objective"):
        ExtraTerms(config, checkpoint().model, {})


def test_what_phase1_trained_is_in_the_checkpoint_and_phase2_starts_from_it(tmp_path):
    source = tmp_path / "text.txt"
    source.write_text("the cat sat on the mat.\n\nça va, é?\n\n" * 60, encoding="utf-8")
    other = tmp_path / "other.txt"
    other.write_text("on the mat the cat sat, é?\n\n" * 40, encoding="utf-8")
    prepare(tmp_path / "data", source="text-file", input=source, val_input=other)
    data = open_dataset(tmp_path / "data")
    config = resolve(
        {"model": {"context_dim": 8, "embed_dim": 8}, "objective": {"decoder": "linear"}},
        {"phase1": {"max_tokens": 500, "max_iterations": 2}, "phase2": {"epochs": 0}},
        {"gate": OPEN_GATE},
    )
    one = tmp_path / "one.safetensors"
    trained = run_phase1(config, data, Output(one), device=torch.device("cpu"))
    saved = load(one)
    assert set(saved.objective) == {"output.weight", "output.bias"}
    assert saved.config.objective == {"decoder": "linear", "context_weight": 0.7}
    initial, _ = make_objective("reconstruction", config, trained.model)
    for name, tensor in initial.state_dict().items():
        assert torch.equal(saved.objective[name], trained.objective[name])
        assert not torch.equal(saved.objective[name], tensor)
    config = resolve(
        to_dict(saved.config), {"phase2": {"objective": "reconstruction"}}, {"gate": OPEN_GATE}
    )
    output = Output(tmp_path / "two.safetensors")
    run_phase2(saved, data, config, output, device=torch.device("cpu"))
    after = load(tmp_path / "two.safetensors").objective
    assert all(torch.equal(after[name], saved.objective[name]) for name in saved.objective)
