"""Embeddings counted from a text, beside their definition in dictionaries and dense matrices."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from newllm_core.config import ModelConfig
from newllm_core.model import counting as counted
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Silent

V = 12


def text(length=400, vocab=V, seed=0):
    weights = 1 / np.arange(1, vocab + 1)
    draws = np.random.default_rng(seed).choice(vocab, length, p=weights / weights.sum())
    return draws.astype(np.uint16)


def model(vocab=V, dim=6, **options):
    return LanguageModel(ModelConfig(embed_dim=dim, context_dim=4, **options), vocab)


def start(made, tokens):
    counted.count_embeddings(made.embedding.weight, tokens, seed=made.seed, progress=Silent())


def pairs_of(tokens):
    """The definition: 1/distance for every two tokens at most four apart."""
    found = Counter()
    for place, later in enumerate(tokens.tolist()):
        for distance in range(1, min(4, place) + 1):
            found[int(tokens[place - distance]), later] += 1 / distance
    return found


def counted_pairs(tokens):
    keys, weights = counted.count_pairs(tokens, V, counted.WINDOW, "", Silent())
    return keys // V, keys % V, weights


def test_a_tenth_of_the_random_start_tells_tokens_of_the_same_neighbours_apart():
    once, twice = model(), model()
    before = once.embedding.weight.detach().clone()
    with torch.no_grad():
        twice.embedding.weight *= 2
    for made in (once, twice):
        start(made, text())
    found = (twice.embedding.weight - once.embedding.weight).detach()
    torch.testing.assert_close(found, 0.1 * before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 3, 6, 7, 8, 60])
def test_pairs_are_counted_once_wherever_a_chunk_ends(length, monkeypatch):
    monkeypatch.setattr(counted, "CHUNK_TOKENS", 7)
    tokens = text(length)
    left, right, weights = counted_pairs(tokens)
    found = dict(zip(zip(left.tolist(), right.tolist(), strict=True), weights, strict=True))
    assert found == pytest.approx(pairs_of(tokens), rel=1e-12)


def test_of_too_many_pairs_the_heaviest_stay(monkeypatch):
    monkeypatch.setattr(counted, "MOST_PAIRS", 20)
    tokens = text(300)
    everything = sorted(pairs_of(tokens).values(), reverse=True)
    _, _, weights = counted_pairs(tokens)
    assert sorted(weights, reverse=True) == pytest.approx(everything[:20])


def test_information_is_that_of_the_formula():
    pairs = pairs_of(text())
    dense = np.zeros((V, 2 * V))
    for (left, right), weight in pairs.items():
        dense[left, right] += weight
        dense[right, V + left] += weight
    chance = dense.sum(0) ** 0.75
    with np.errstate(divide="ignore"):
        wanted = np.log(dense / dense.sum(1, keepdims=True) / (chance / chance.sum()))
    found = counted.positive_pmi(*counted_pairs(text()), V).to_dense().numpy()
    assert found == pytest.approx(np.maximum(wanted, 0), abs=1e-6)
    assert 0.2 < (found > 0).mean() < 0.8


def test_factors_are_the_strongest_directions():
    matrix = counted.positive_pmi(*counted_pairs(text()), V)
    found = counted.factors(matrix, 4, seed=3)
    left, strength, _ = torch.linalg.svd(matrix.to_dense(), full_matrices=False)
    wanted = left[:, :4] * strength[:4].sqrt()
    # Up to the sign of a direction.
    assert torch.allclose(found @ found.T, wanted @ wanted.T, atol=2e-3)


def test_tokens_with_the_same_neighbours_come_to_lie_beside_each_other():
    # 0 and 1 stand in the same places, 2 and 3 in others.
    random = np.random.default_rng(0)
    places = [([4, 5], [0, 1], [6, 7]), ([8, 9], [2, 3], [10, 11])]
    tokens = [random.choice(part) for _ in range(300) for part in places[random.integers(2)]]
    made = model(dim=8, embeddings="counts")
    start(made, np.array(tokens))
    rows = F.normalize(made.embedding.weight.detach())
    assert torch.minimum(rows[0] @ rows[1], rows[2] @ rows[3]) > 0.8
    assert rows[0] @ rows[2] < 0.4
    before = F.normalize(model(dim=8).embedding.weight.detach())
    assert before[0] @ before[1] < 0.8


@pytest.mark.parametrize("dim", [6, 40])
def test_what_does_not_occur_stays_as_it_was_however_wide_a_row_is(dim):
    made = model(vocab=60, dim=dim, embeddings="counts")
    random = made.embedding.weight.detach().clone()
    start(made, text(300, vocab=9))
    assert torch.equal(made.embedding.weight[9:], random[9:])
    rows = made.embedding.weight[:9].detach()
    assert not torch.isclose(rows, random[:9]).all(dim=1).any()
    assert rows.norm(dim=1).mean() == pytest.approx(1, abs=0.1)


def test_a_seed_gives_the_same_vectors_on_any_threads_and_nobody_elses_draws_change(using_threads):
    rows = []
    for threads in (1, 2):
        using_threads(threads)
        made = model(vocab=2000, dim=64, embeddings="counts")
        before = torch.random.get_rng_state()
        start(made, text(20_000, vocab=2000))
        assert torch.get_num_threads() == threads
        assert torch.equal(torch.random.get_rng_state(), before)
        rows.append(made.embedding.weight.detach())
    assert torch.equal(*rows)
    norms = rows[0].norm(dim=1)
    assert norms.mean() == pytest.approx(1, abs=0.05)


def test_more_dimensions_than_tokens_and_a_large_vocabulary_fit():
    wide = model(dim=40, embeddings="counts")
    start(wide, text())
    assert torch.isfinite(wide.embedding.weight).all()
    large = model(vocab=50_257, dim=16, embeddings="counts")
    start(large, text(3000, vocab=50_257))
    assert torch.isfinite(large.embedding.weight).all()
    assert not torch.equal(large.embedding.weight, model(vocab=50_257, dim=16).embedding.weight)


def test_a_tied_head_starts_with_them_and_both_are_trained():
    made = model(embeddings="counts", tie_weights=True)
    start(made, text())
    assert made.heads()[-1].weight is made.embedding.weight
    assert made.embedding.weight.requires_grad
