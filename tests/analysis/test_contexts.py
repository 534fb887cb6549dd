import pytest
import torch
from recurrence import text_formula

from newllm_core.analysis.contexts import equal_probes, read_splits, require_finite
from newllm_core.analysis.recurrence import ModelRecurrence
from newllm_core.errors import DivergedError, InputError
from newllm_core.trajectory.sequential import rollout

from . import planted


@pytest.mark.parametrize("warmup", [0, 1, 63, 64, 65, 130])
def test_contexts_are_those_of_the_naive_recurrence(warmup, exact_device):
    model = planted.healthy().double().to(exact_device)
    tokens = torch.randint(planted.VOCAB, (3, 150), generator=torch.Generator().manual_seed(0))
    read = read_splits(ModelRecurrence(model), {"train": tokens}, warmup)["train"]
    for passage, ids, trajectory in zip(tokens, read.tokens, read.trajectory, strict=True):
        whole = text_formula(model, passage, model.start(1)[0])
        assert torch.equal(ids.cpu(), passage[warmup:])
        torch.testing.assert_close(trajectory, whole[max(0, warmup - 1) :])
    expected = read.trajectory[:, min(warmup, 1) :].reshape(-1, planted.CONTEXT)
    torch.testing.assert_close(read.contexts, expected)
    assert len(read.contexts) == 3 * (150 - warmup)
    # Whoever goes on from the starts of evenly spaced passages finds the trajectory again.
    some, ids, starts = read.evenly(2, 10)
    torch.testing.assert_close(some[:, 0], starts)
    torch.testing.assert_close(some[:, 1:], rollout(model, ids, starts))
    torch.testing.assert_close(some, read.trajectory[[0, 2], :11])


def test_splits_are_cut_to_the_same_size():
    probes = {"train": torch.zeros(5, 40), "validation": torch.zeros(3, 60)}
    assert {tuple(tokens.shape) for tokens in equal_probes(probes, 8).values()} == {(3, 40)}


def test_probes_that_are_all_warm_up_are_refused():
    probes = {"train": torch.zeros(2, 16), "validation": torch.zeros(2, 16)}
    words = "^the text gives 2 passages of 16 tokens with a warm-up of 16: too few .* longer text"
    with pytest.raises(InputError, match=words):
        equal_probes(probes, 16)


def test_contexts_that_explode_are_refused_by_name():
    model = planted.healthy()
    with torch.no_grad():
        model.cells()[0].network.to_context.bias.fill_(float("inf"))
    probes = {"validation": torch.zeros(1, 4, dtype=torch.long)}
    recurrence = ModelRecurrence(model)
    words = r"validation passages are not finite.*\(train with a smaller model\.init_std"
    with pytest.raises(DivergedError, match=words):
        require_finite(read_splits(recurrence, probes, 0), recurrence)
