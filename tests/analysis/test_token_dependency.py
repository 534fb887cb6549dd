import itertools

import numpy as np
import pytest
import torch

from newllm_core.analysis.recurrence import ModelRecurrence
from newllm_core.analysis.token_dependency import token_dependency
from newllm_core.config import AnalysisConfig
from newllm_core.errors import InputError

from . import maps, planted

CONFIG = AnalysisConfig()


def contexts(count=50):
    return torch.randn(count, planted.CONTEXT, generator=torch.Generator().manual_seed(0))


def test_a_model_that_ignores_tokens_has_cosine_one():
    found = token_dependency(
        ModelRecurrence(planted.ignoring_tokens()), contexts(), torch.arange(60), CONFIG, seed=0
    )
    assert found["mean_cosine"] == pytest.approx(1.0, abs=1e-12)
    assert found["mean_l2"] == 0


@pytest.mark.parametrize("scale", [0.0, 1e-20])
def test_contexts_without_length_that_ignore_tokens_have_cosine_one_too(scale):
    ignoring = maps.Map(4, lambda c, x: scale * c)
    found = token_dependency(ignoring, contexts()[:, :4], torch.arange(60), CONFIG, seed=0)
    assert found["mean_cosine"] == pytest.approx(1.0, abs=1e-12)
    assert found["std_cosine"] == pytest.approx(0.0, abs=1e-6)


def test_equals_a_loop_over_contexts_and_pairs():
    model, tokens, rows = planted.healthy(), torch.tensor([3, 5, 8, 8, 3]), contexts(4)
    cosines, distances = [], []
    with torch.no_grad():
        for row in rows:
            after = {
                t: model.step(context=row, token=model.embed(torch.tensor(t)))[-1].double()
                for t in (3, 5, 8)
            }
            for a, b in itertools.combinations(after.values(), 2):
                cosines.append(float(a @ b / a.norm() / b.norm()))
                distances.append(float((a - b).norm()))
    found = token_dependency(ModelRecurrence(model), rows, tokens, CONFIG, seed=0)
    asked = AnalysisConfig(token_ids=(8, 3, 5))
    # The ids that were asked for are read, whatever the text holds.
    chosen = token_dependency(ModelRecurrence(model), rows, torch.tensor([1, 2]), asked, seed=0)
    assert chosen["mean_cosine"] == pytest.approx(found["mean_cosine"], abs=1e-9)
    assert found["std_cosine"] == pytest.approx(np.std(cosines), abs=1e-6)
    assert found["mean_cosine"] == pytest.approx(sum(cosines) / 12, abs=1e-6)
    assert found["mean_l2"] == pytest.approx(sum(distances) / 12, abs=1e-5)
    assert found["mean_cosine"] < 0.9


def test_a_text_of_one_token_type_is_compared_with_the_vocabulary():
    found = token_dependency(
        ModelRecurrence(planted.healthy()), contexts(), torch.full((9,), 3), CONFIG, seed=0
    )
    assert found["mean_cosine"] < 0.9
    assert found["mean_l2"] > 1


@pytest.mark.parametrize("ids", [(3, 3), (5, planted.VOCAB)])
def test_ids_that_cannot_be_compared_are_refused(ids):
    config = AnalysisConfig(token_ids=ids)
    with pytest.raises(InputError, match="two or more different ids below 120"):
        token_dependency(
            ModelRecurrence(planted.healthy()), contexts(), torch.arange(9), config, seed=0
        )


@pytest.mark.parametrize("seed", range(5))
def test_the_standard_error_covers_all_contexts_and_tokens(seed):
    model = planted.healthy()
    contexts = torch.randn(300, planted.CONTEXT, generator=torch.Generator().manual_seed(1))
    tokens = torch.arange(planted.VOCAB)
    sampled = token_dependency(ModelRecurrence(model), contexts, tokens, CONFIG, seed=seed)
    all_of_them = AnalysisConfig(dependency_contexts=300, dependency_tokens=planted.VOCAB)
    exact = token_dependency(ModelRecurrence(model), contexts, tokens, all_of_them, seed=seed)
    assert abs(sampled["mean_cosine"] - exact["mean_cosine"]) < 4 * sampled["stderr"]
    assert 0 < sampled["stderr"] < 0.1
