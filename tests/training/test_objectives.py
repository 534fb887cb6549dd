"""What objectives are given to read, in both phases."""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from markov_text import checkpoint
from naive_phase1 import make_config, make_loss, naive_incoming
from recurrence import D, E, V, draw_tokens, make_model, token_formula

from newllm_core.checkpoint.run_state import State
from newllm_core.errors import PluginError
from newllm_core.objectives.base import NO_TOKEN, Objective, check_reads, tokens_at
from newllm_core.runtime.progress import Task
from newllm_core.settings import resolve
from newllm_core.training.phase1.engines import batches
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Trainer
from newllm_core.training.phase2.extra_terms import ExtraTerms
from newllm_core.training.phase2.fine_tuning import FineTuning

CPU = torch.device("cpu")
ENGINES = ("parallel", "streams", "online")
SAME_WEIGHTS = {"objective": {"teacher": "same-weights"}}
TEXT = {"train": draw_tokens(40).numpy(), "validation": draw_tokens(20, seed=1).numpy()}


def make_trainer(section=None, *, device=CPU, **phase1):
    config = make_config(section, max_iterations=4, **phase1)
    loss = make_loss(make_model().to(device), config)
    trainer = Phase1Trainer(loss, TEXT, config, end_id=3)
    return trainer, config


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("start", ["zero", "carry"])
def test_same_weights_compares_two_readings_each_from_its_own_contexts(engine, start, exact_device):
    given = {"engine": engine, "start": start, "max_tokens": 9 if engine == "online" else 40}
    trainer, config = make_trainer(SAME_WEIGHTS, **given, dist_reg_weight=0.0, device=exact_device)
    model, window = trainer.model, trainer.windows.train
    twin, parameters = window.twin, list(trainer.model.blocks.parameters())
    assert not window.first_C.any()
    assert twin.first_C.norm().item() == pytest.approx(D**0.5, rel=0.5)
    for _ in range(3):
        before = [naive_incoming(model, part, config) for part in (window, twin)]
        by_token = [
            torch.stack(
                [token_formula(model, t, c)[-1] for t, c in zip(window.tokens_T, rows, strict=True)]
            )
            for rows in before
        ]
        readings = [
            batches(model, part, config.phase1, drawn)
            for part, drawn in window.with_twin(torch.Generator().manual_seed(5))
        ]
        for batch, other in zip(*readings, strict=True):
            assert torch.equal(batch.positions_N, other.positions_N)
            terms = trainer.loss.of_batch(window, batch, other)
            at = batch.positions_N
            final, teacher = by_token[0][at], by_token[1][at].detach()
            expected = ((final - teacher) ** 2).sum() / (len(at) * D)
            assert list(terms.losses) == ["cvfp"]
            assert terms.losses["cvfp"].item() == pytest.approx(expected.item(), rel=1e-9)
            gradients = [
                torch.autograd.grad(
                    loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
                )
                for loss in (terms.total, expected)
            ]
            for found, wanted in zip(*gradients, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-10)
            window.store(at, terms.contexts_NC)
            twin.store(at, terms.second_NC)
        window.finish_reading()
        for part, contexts in zip((window, twin), by_token, strict=True):
            torch.testing.assert_close(part.previous_TC, contexts.detach(), rtol=0, atol=1e-9)
        assert (window.previous_TC - twin.previous_TC).abs().max() > 1e-6


def test_every_window_and_split_has_a_twin_that_starts_elsewhere():
    trainer, _ = make_trainer(SAME_WEIGHTS, window_tokens=25)
    starts = []
    for _ in range(trainer.windows.count):
        for window in (trainer.windows.train, trainer.windows.validation):
            assert torch.equal(window.twin.tokens_T, window.tokens_T)
            assert not torch.equal(window.twin.first_C, window.first_C)
        starts.append(trainer.windows.train.twin.first_C)
        trainer.windows.advance()
    assert len(starts) == 2
    assert not torch.equal(*starts)
    assert make_trainer()[0].windows.train.twin is None


class Remembers:
    """A saver that keeps the state after the n-th batch."""

    def __init__(self, at):
        self.left, self.kept = at, None

    def begin(self, trainer):
        """Nothing is resumed."""

    @contextmanager
    def step(self, state):
        yield

    interruptible = step

    def maybe_save(self, state):
        self.left -= 1
        if self.left == 0:
            tensors, values, path, _ = state()
            copied = {name: tensor.clone() for name, tensor in tensors.items()}
            self.kept = State(copied, copy.deepcopy(values), path)


@pytest.mark.parametrize("engine", ["parallel", "streams"])
@pytest.mark.parametrize("at", [1, 3, 4, 6])
@pytest.mark.parametrize("section", [SAME_WEIGHTS, {}], ids=["same-weights", "reading-before"])
def test_a_run_that_is_continued_makes_the_same_steps(section, engine, at):
    given = {"engine": engine, "window_tokens": 25, "later_iterations": 2, "chunk_steps": 3}
    whole, _ = make_trainer(section, **given)
    whole.saver = Remembers(at)
    whole.run()
    state = whole.saver.kept
    assert ("window.twin_previous_TC" in state.tensors) == bool(section)
    continued, _ = make_trainer(section, **given)
    continued.load_state(state)
    continued.run()
    assert continued.history == whole.history
    assert all(map(torch.equal, continued.parameters, whole.parameters))
    assert whole.history[-1]["weight_change"] > 0


N = NO_TOKEN
#        places: 0  1  2  3  4  5  6; 9 closes a document
DOCUMENTS = [5, 6, 9, 7, 8, 9, 4]


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (1, [6, 9, N, 8, 9, N, N]),
        (2, [9, N, N, 9, N, N, N]),
        (3, [N] * 7),
        (-1, [N, 5, 6, N, 7, 8, N]),
        (-2, [N, N, 5, N, N, 7, N]),
    ],
)
def test_tokens_at_other_places_of_the_same_document_and_text(offset, expected):
    text = torch.tensor(DOCUMENTS)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    found = tokens_at(text.__getitem__, 7, order, offset, 9)
    assert found.dtype == torch.int64
    assert found.tolist() == [expected[place] for place in order]


class Recorder(Objective):
    """Keeps what it is given; its one parameter scales a prediction of the next embedding."""

    reads = ("tokens_at:+1", "tokens_at:-2", "embedding_matrix", "previous")

    def __init__(self, *sizes, reads=None):
        super().__init__(*sizes)
        self.reads = self.reads if reads is None else reads
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.seen = []

    def loss(self, *, final_NC, incoming_NC, embedded_NE, **read):
        self.seen.append(read | {"incoming": incoming_NC, "embedded": embedded_NE})
        return (self.scale * final_NC - 1).square().mean()


def test_phase1_reads_what_was_declared_and_nothing_across_a_windows_edge():
    config = make_config(dist_reg_weight=0.0, engine="online", window_tokens=4, max_iterations=1)
    model = make_model()
    recorder = Recorder(D, E, V)
    text = {name: np.array(DOCUMENTS) for name in TEXT}
    loss = Phase1Loss(model, recorder, make_loss(model, config).regularizers, config.phase1)
    trainer = Phase1Trainer(loss, text, config, end_id=9)
    how = {"exact": False, "rate": None, "task": Task()}
    trainer._read(trainer.windows.train, trainer.meter, torch.Generator(), **how)
    seen = recorder.seen
    assert set(seen[0]) == {*Recorder.reads, "incoming", "embedded"}
    # The window ends after place 3.
    assert [int(read["tokens_at:+1"]) for read in seen] == [6, 9, N, N]
    assert [int(read["tokens_at:-2"]) for read in seen] == [N, N, 5, N]
    assert torch.equal(seen[0]["embedding_matrix"], model.embedding.weight)
    assert not any(value.requires_grad for read in seen for value in read.values())
    for place, read in enumerate(seen):
        torch.testing.assert_close(read["embedded"][0], model.embed(torch.tensor(DOCUMENTS[place])))


@pytest.mark.parametrize(
    ("num_streams", "epoch", "first"), [(1, 0, 0), (2, 0, 0), (1, 1, 5), (2, 1, 2)]
)
def test_phase2_reads_tokens_beyond_a_window_but_not_beyond_a_document(num_streams, epoch, first):
    text = np.array([*DOCUMENTS[:6], 4, 2], np.uint16)
    start = checkpoint(context_dim=6, embed_dim=5, options={})
    config = resolve(
        {"phase2": {"objective": "reconstruction", "num_streams": num_streams, "bptt": 3}}
    )
    extra = ExtraTerms(config, start.model, {})
    extra.objective = Recorder(6, 5, 12, reads=("tokens_at:+1", "tokens_at:-2"))
    source = FineTuning(
        start.model, text, end_id=9, config=config.phase2, weights=[1.0], extra=extra
    )
    for _ in range(epoch):
        source.begin_epoch()
    list(source.losses(torch.Generator()))
    # What is read for each place is the token before it: 9 5 6 9 7 8 9 4.
    later = [N, 6, 9, N, 8, 9, N, 2]
    earlier = [N, N, N, 5, N, N, 7, N]
    length = 8 // num_streams
    windows = [
        [
            (first + stream * length + place) % 8
            for stream in range(num_streams)
            for place in range(begin, end)
        ]
        for begin, end in zip(range(0, length, 3), [*range(3, length, 3), length], strict=True)
    ]
    for read, places in zip(extra.objective.seen, windows, strict=True):
        assert read["tokens_at:+1"].tolist() == [later[place] for place in places]
        assert read["tokens_at:-2"].tolist() == [earlier[place] for place in places]


def test_an_objective_with_parameters_is_trained():
    config = make_config(dist_reg_weight=0.0, max_iterations=3)
    model, recorder = make_model(), Recorder(D, E, V).double()
    recorder.reads = ()
    regularizers = list(make_loss(model, config).regularizers)
    Phase1Trainer(Phase1Loss(model, recorder, regularizers, config.phase1), TEXT, config).run()
    assert recorder.scale.item() == pytest.approx(1 - 2 * config.phase1.learning_rate, rel=1e-4)


@pytest.mark.parametrize(
    "name", ["tokens_at:-0", "tokens_at:+2000", "tokens_at:2", "tokens_at:", "contexts", "final_NC"]
)
def test_names_that_nobody_supplies_are_refused(name):
    with pytest.raises(PluginError, match="choose from previous, second_reading") as caught:
        check_reads(Recorder(D, E, V, reads=(name,)))
    assert repr(name) in str(caught.value)
