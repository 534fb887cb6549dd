import itertools

import pytest
import torch

from newllm_core.analysis.token_dependency import token_dependency

from . import planted


def contexts(count=50):
    return torch.randn(count, planted.CONTEXT, generator=torch.Generator().manual_seed(0))


def test_a_model_that_ignores_tokens_has_cosine_one():
    found = token_dependency(planted.ignoring_tokens(), contexts(), torch.arange(60), seed=0)
    assert found["mean_cosine"] == pytest.approx(1.0, abs=1e-12)
    assert found["mean_l2"] == 0


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
    found = token_dependency(model, rows, tokens, seed=0)
    assert found["mean_cosine"] == pytest.approx(sum(cosines) / 12, abs=1e-6)
    assert found["mean_l2"] == pytest.approx(sum(distances) / 12, abs=1e-5)
    assert found["mean_cosine"] < 0.9


def test_a_text_of_one_token_type_is_compared_with_the_vocabulary():
    found = token_dependency(planted.healthy(), contexts(), torch.full((9,), 3), seed=0)
    assert found["mean_cosine"] < 0.9
    assert found["mean_l2"] > 1


@pytest.mark.parametrize("seed", range(5))
def test_the_standard_error_covers_all_contexts_and_tokens(seed, monkeypatch):
    model = planted.healthy()
    contexts = torch.randn(300, planted.CONTEXT, generator=torch.Generator().manual_seed(1))
    tokens = torch.arange(planted.VOCAB)
    sampled = token_dependency(model, contexts, tokens, seed=seed)
    monkeypatch.setattr("newllm_core.analysis.token_dependency.NUM_CONTEXTS", 300)
    monkeypatch.setattr("newllm_core.analysis.token_dependency.NUM_TOKENS", planted.VOCAB)
    exact = token_dependency(model, contexts, tokens, seed=seed)
    assert abs(sampled["mean_cosine"] - exact["mean_cosine"]) < 4 * sampled["stderr"]
    assert 0 < sampled["stderr"] < 0.1
