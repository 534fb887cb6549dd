"""Steps of both phases ask the device for nothing: figures wait there until they are fetched."""

import itertools
import json

import numpy as np
import pytest
import torch
from markov_text import END, VOCAB, checkpoint, dataset
from synchronisation import waits

from newllm_core import settings
from newllm_core.kernels.door import choose
from newllm_core.model.counting import count_bigrams
from newllm_core.model.language_model import LanguageModel
from newllm_core.plugins.registry import CELLS, OBJECTIVES, REGULARIZERS
from newllm_core.runtime.progress import Silent
from newllm_core.training.pass_meter import PassMeter
from newllm_core.training.phase1.engines import batches
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.context_store import ContextStore
from newllm_core.training.phase2.extra_terms import ExtraTerms, make_objective
from newllm_core.training.phase2.fine_tuning import FineTuning
from newllm_core.training.phase2.frozen import FrozenContexts
from newllm_core.training.phase2.head_loss import plain_cross_entropy
from newllm_core.training.phase2.run import train_phase2
from newllm_core.training.phase2.steps import Steps, trained_parameters, training_only

TOKENS = dataset(documents=5).train.tokens
SMALL = {
    "model": {"context_dim": 16, "embed_dim": 16},
    "phase1": {"num_streams": 4, "chunk_steps": 5, "batch_tokens": 32, "min_batch_tokens": 1},
    "phase2": {"num_streams": 4, "bptt": 6, "batch_tokens": 32, "dropout": 0.1},
}
# The objective `tokens` must know how many different ones a batch holds.
UNAVOIDABLE = {"tokens": ["_unique2"]}


@pytest.fixture(autouse=True)
def without_mps(request):
    """Values come to MPS by copies that wait."""
    if "device" in request.fixturenames and request.getfixturevalue("device").type == "mps":
        pytest.skip("only CUDA has pinned memory")


def looks_are_free(device):
    """Say whether a step knows norm and losses without waiting."""
    return torch.device(device).type == "cpu"


def phase1_steps(device, count=3, **section):
    """What waits in some training steps, and their figures."""
    config = settings.resolve(SMALL, section)
    model = LanguageModel(config.model, VOCAB, cell=config.cell)
    objective, _ = make_objective(config.phase1.objective, config, model)
    regularizers, _ = REGULARIZERS.make(config.phase1.reg, config.regularizer, 16)
    loss = Phase1Loss(model, objective, regularizers, config.phase1).to(device)
    tokens = {"train": TOKENS, "validation": TOKENS}
    trainer = Phase1Trainer(loss, tokens, config, end_id=END)
    window, meter = trainer.windows.train, PassMeter()
    assert trainer.step.looks == looks_are_free(device)
    trainer.step.looks = False
    window.previous_TC.normal_()
    readings = [
        batches(model, part, config.phase1, drawn)
        for part, drawn in window.with_twin(torch.Generator().manual_seed(0))
    ]
    steps = itertools.islice(zip(*readings, strict=True), count)
    with waits() as found:
        for batch, *twin in steps:
            trainer.make_step(window, batch, twin, meter, 0.01)
            trainer.statistics = trainer._statistics()
    assert meter.read() == []
    assert meter.batches == count
    assert set(meter.norms) == set(meter.sums)
    return found, meter


@pytest.mark.parametrize("engine", ["parallel", "streams", "online"])
@pytest.mark.parametrize("cell", sorted(CELLS.plugins()))
def test_a_step_of_every_engine_and_cell(device, engine, cell):
    found, meter = phase1_steps(device, model={"cell": cell}, phase1={"engine": engine})
    assert found == []
    assert meter.last["gradient norm"] > 0


@pytest.mark.parametrize("reg", sorted(REGULARIZERS.plugins()))
def test_a_step_with_every_regularizer(device, reg):
    weight = 0.0 if reg == "none" else 0.5
    assert phase1_steps(device, phase1={"reg": reg, "dist_reg_weight": weight})[0] == []


def test_a_step_of_the_published_regularizer(device):
    section = {"phase1": {"reg": "ema-variance"}, "regularizer": {"gradient": "detached"}}
    found, meter = phase1_steps(device, **section)
    assert found == []
    assert meter.norms["regularizer"] == 0


@pytest.mark.parametrize("objective", sorted(OBJECTIVES.plugins()))
def test_a_step_with_every_objective(device, objective):
    found, _ = phase1_steps(device, phase1={"objective": objective, "engine": "streams"})
    assert found == 3 * UNAVOIDABLE.get(objective, [])


def test_a_step_with_a_second_reading(device):
    section = {"phase1": {"objective": "cvfp"}, "objective": {"teacher": "same-weights"}}
    assert phase1_steps(device, **section)[0] == []


def phase2_steps(device, tmp_path, *, shape=None, count=3, kernels="auto", **phase2):
    """What waits in some steps of heads or of everything."""
    config = settings.resolve(SMALL, {"phase2": phase2, "run": {"kernels": kernels}})
    model = checkpoint(**{"options": {}} | (shape or {})).model
    if model.bigrams is not None:
        count_bigrams(model.bigrams, TOKENS, end_id=END, progress=Silent())
    extra = ExtraTerms(config, model, {}).to(device)
    model.to(device)
    like, kernels = model.embedding.weight, config.run.kernels
    options = {
        "end_id": END,
        "config": config.phase2,
        "weights": [1.0] * model.num_heads,
        "head_loss": choose("cross-entropy", plain_cross_entropy, like, setting=kernels),
    }
    parameters = trained_parameters(model, extra, config.phase2)
    steps, meter = Steps(parameters, config.phase2, 100), PassMeter()
    assert steps.change.looks == looks_are_free(device)
    steps.change.looks = False
    with ContextStore(tmp_path, len(TOKENS), (model.num_heads, 16), device) as store:
        if config.phase2.freeze_context:
            source = FrozenContexts(model, TOKENS, store=store, seed=0, **options)
            source.fill(Silent())
        else:
            source = FineTuning(model, TOKENS, extra=extra, **options)
        losses = source.losses(torch.Generator(device).manual_seed(0))
        with training_only(model, parameters), waits() as found:
            source.candidates = steps.candidates
            for terms in itertools.islice(losses, count):
                steps.make(terms)
                meter.count(terms.plain, terms.num_tokens, steps.gradient_norm)
                source.state()
    assert meter.read() == []
    assert meter.batches == count
    assert np.isfinite(list(meter.last.values())).all()
    return found, meter


@pytest.mark.parametrize("freeze_context", [True, False])
@pytest.mark.parametrize(
    "shape",
    [{}, {"num_heads": 2}, {"head_bigrams": 20}, {"tie_weights": True, "head_hidden": 8}],
    ids=["plain", "two-heads", "bigrams", "tied-hidden"],
)
@pytest.mark.parametrize("kernels", ["auto", "off"])
def test_a_step_of_heads(device, tmp_path, shape, freeze_context, kernels):
    given = {"shape": shape, "kernels": kernels, "freeze_context": freeze_context}
    assert phase2_steps(device, tmp_path, **given)[0] == []


def test_a_step_among_candidates(device, tmp_path):
    # It must know which tokens follow, and how many others there are.
    assert phase2_steps(device, tmp_path, candidates=8)[0] == 3 * ["nonzero", "index"]


@pytest.mark.parametrize("cell", sorted(CELLS.plugins()))
def test_a_step_through_time_of_every_cell(device, tmp_path, cell):
    assert phase2_steps(device, tmp_path, shape={"cell": cell}, input_dropout=0.1)[0] == []


@pytest.mark.parametrize("objective", ["reconstruction", "tokens"])
def test_a_step_with_terms_beside_the_heads(device, tmp_path, objective):
    terms = {"objective": objective, "objective_weight": 0.2, "reg": "covariance-ema"}
    found, meter = phase2_steps(device, tmp_path, **terms)
    assert found == 3 * UNAVOIDABLE.get(objective, [])
    assert set(meter.last) == {"cross-entropy", objective, "covariance-ema", "gradient norm"}


def test_no_step_waits_to_be_logged(saver):
    section = {"phase2": {"epochs": 1}, "run": {"check_interval_steps": 4}}
    data = dataset(documents=5)
    train_phase2(checkpoint(), data, settings.resolve(SMALL, section), saver=saver)
    events = [json.loads(line) for line in saver.log.path.read_text().splitlines()]
    steps = [event["step"] for event in events if event["event"] == "step"]
    assert len(steps) > 1
    assert all(step % 4 == 0 for step in steps)


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.sum().item(),
        lambda x: bool(x[0] > 0),
        lambda x: float(x[0]),
        lambda x: x.tolist(),
        lambda x: x[x > 0],
        lambda x: x.masked_fill_(x > 0, 0)[x == 0],
        lambda x: x.long().unique(),
        lambda x: x.nonzero(),
        lambda x: x.cpu(),
        lambda x: torch.equal(x, x),
    ],
)
def test_what_waits_is_seen(wait):
    values = torch.randn(5)
    with waits() as found:
        values.add_(1).mul(values).sum()
        assert found == []
        wait(values)
    assert len(found) == 1
