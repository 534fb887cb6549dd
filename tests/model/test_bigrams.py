"""Counts of pairs against an independent Kneser-Ney model, and heads that are mixed with them."""

import numpy as np
import pytest
import torch
from recurrence import D, draw, draw_tokens, make_model, single_logits
from torch.nn import functional as F

from benchmarks.peers.ngram import KneserNey
from newllm_core.config import Phase2Config
from newllm_core.evaluation.splits import score
from newllm_core.model import counting
from newllm_core.model.bigrams import Bigrams
from newllm_core.model.counting import count_bigrams
from newllm_core.runtime.progress import Silent
from newllm_core.training.phase2.source import Source
from newllm_core.trajectory.text import ContextChunk

VOCAB, END = 40, 3


def text(length=3000, seed=0):
    """Frequent and rare tokens, each likely before some others; the last one never occurs."""
    rng = np.random.default_rng(seed)
    jumps = np.minimum(rng.geometric(0.3, length), VOCAB - 3)
    return (np.cumsum(jumps) % (VOCAB - 1)).astype(np.uint16)


def counted(tokens, pairs=2000):
    bigrams = Bigrams(pairs, VOCAB).double()
    count_bigrams(bigrams, tokens, end_id=END, progress=Silent())
    return bigrams


def both(tokens):
    ids = torch.from_numpy(np.concatenate([[END], tokens.astype(np.int64)]))
    return ids[:-1], ids[1:]


def test_probabilities_are_those_of_a_kneser_ney_model_of_order_2():
    bigrams, other = counted(text()), text(500, seed=1)
    peer = KneserNey(text(), vocab_size=VOCAB, order=2, end_id=END)
    found = bigrams.log_probability(*both(other)).exp().numpy()
    np.testing.assert_allclose(found, peer.probabilities(other), rtol=2e-6)
    assert found.std() > 0.05


@pytest.mark.parametrize("pairs", [2000, 50, 1])
def test_they_sum_to_one_however_many_pairs_are_kept(pairs):
    bigrams, last = counted(text(), pairs), torch.arange(VOCAB).flip(0)
    whole = bigrams.probabilities(last)
    torch.testing.assert_close(whole.sum(1), torch.ones(VOCAB).double())
    each = [bigrams.log_probability(last, torch.full((VOCAB,), w)) for w in range(VOCAB)]
    torch.testing.assert_close(whole, torch.stack(each, 1).exp())


@pytest.mark.parametrize("pairs", [2000, 50])
def test_a_place_that_is_left_out_was_never_counted(pairs):
    """As if the text had been counted without that pair; p(w) and D, of all of it, stay."""
    tokens = text(400)
    last, following = both(tokens)
    bigrams = counted(tokens, pairs)
    found = bigrams.log_probability(last, following, counted_N=torch.ones(400, dtype=torch.bool))
    kept = {divmod(pair, VOCAB) for pair in bigrams.pairs.tolist()}
    n = np.zeros((VOCAB, VOCAB), int)
    np.add.at(n, (last.numpy(), following.numpy()), 1)
    discounts = bigrams.discounts.numpy()
    for place in range(400):
        v, w = int(last[place]), int(following[place])
        of_v = n[v].copy()
        of_v[w] -= 1
        given = [max(c - discounts[min(c, 3)], 0) * ((v, u) in kept) for u, c in enumerate(of_v)]
        total, single = of_v.sum(), float(bigrams.single[w])
        p = (given[w] + (total - sum(given)) * single) / total if total else single
        assert float(found[place].exp()) == pytest.approx(p, rel=1e-6)
    of_others = bigrams.log_probability(
        last, following, counted_N=torch.zeros(400, dtype=torch.bool)
    )
    assert torch.equal(of_others, bigrams.log_probability(last, following))
    assert (of_others - found).mean() > 0.03


def test_before_anything_is_counted_all_tokens_are_alike():
    bigrams = Bigrams(9, VOCAB)
    assert bigrams.probabilities(torch.tensor([0, 5])).unique().tolist() == pytest.approx(
        [1 / VOCAB]
    )


def test_a_text_in_pieces_has_the_same_counts_and_the_rarest_pairs_are_forgotten(monkeypatch):
    whole = counted(text())
    monkeypatch.setattr(counting, "CHUNK_TOKENS", 7)
    pieces = counted(text())
    for name, of_whole in whole.named_buffers():
        assert torch.equal(of_whole, pieces.get_buffer(name)), name
    monkeypatch.setattr(counting, "CHUNK_TOKENS", 10_000)
    monkeypatch.setattr(counting, "MOST_PAIRS", 30)
    keys, n = counting.count_pairs(text(), VOCAB, 1, "", Silent())
    assert len(keys) == 30
    assert n.min() > 10


def test_counts_that_nobody_made_are_refused():
    counted(text()).require_order()
    for part, place, value in (
        ("pairs", 0, VOCAB**2),
        ("pairs", 0, -1),
        ("pairs", -1, VOCAB**2 + 1),
        ("counts", 3, -1),
        ("rest", 3, -1),
        ("single", 0, 0),
    ):
        damaged = counted(text())
        damaged.get_buffer(part)[place] = value
        with pytest.raises(ValueError, match="of bigrams"):
            damaged.require_order()


@pytest.fixture
def mixed():
    """A model whose gate has an opinion, and counts; its sizes are the shared ones."""
    model = make_model(head_bigrams=50)
    tokens = draw_tokens(1, 300)[0]
    count_bigrams(model.bigrams, tokens.numpy().astype(np.uint16), end_id=0, progress=Silent())
    with torch.no_grad():
        model.heads()[-1].gate.weight.copy_(draw(1, D))
    return model


def test_a_mixture_is_a_probability(mixed):
    contexts, last = draw(6, D), draw_tokens(1, 6)[0]
    (found,) = mixed.logits([contexts], last)
    head = mixed.heads()[-1]
    g = torch.sigmoid(head.gate(contexts))
    expected = (1 - g) * head(contexts).softmax(-1)
    expected = expected + g * mixed.bigrams.probabilities(last)
    torch.testing.assert_close(found.exp(), expected)
    assert g.std().item() > 0.01
    single = single_logits(mixed, contexts[2], int(last[2]))
    torch.testing.assert_close(single, found[2].detach())


def test_evaluation_is_of_the_mixture(mixed):
    contexts, (last, following) = draw(60, D), draw_tokens(2, 60)
    said = mixed.logits([contexts], last)[0].detach()
    reading = ContextChunk(np.arange(60), last, following, [contexts])
    with Silent().task("scoring", 60, "tokens") as task:
        found = score(mixed, [reading], task)
    assert found.nats[0] == pytest.approx(F.cross_entropy(said, following, reduction="sum").item())
    assert found.hits[0] == (said.argmax(-1) == following).sum() > 0
    own = F.cross_entropy(mixed.heads()[-1](contexts), following, reduction="sum").item()
    assert abs(found.nats[0] - own) > 0.1


def test_the_loss_told_is_the_mixtures_and_heads_learn_as_without_counts(mixed):
    contexts, (last, following) = draw(6, D).requires_grad_(), draw_tokens(2, 6)
    mixture = F.cross_entropy(mixed.logits([contexts], last)[0], following)
    config = Phase2Config(dropout=0.0)
    source = Source(mixed, np.empty(0, np.int64), end_id=0, config=config, weights=[1.0])
    elsewhere = np.full(len(last), np.inf)  # no place that was counted
    total, plain = source.cross_entropy(
        [contexts], last, following, elsewhere, generator=torch.Generator(), rows=[len(last)]
    )
    alone = F.cross_entropy(mixed.heads()[-1](contexts, last), following)
    assert plain["cross-entropy"] == pytest.approx(mixture.item(), rel=1e-6)
    head = mixed.heads()[-1]
    for parts, of in (
        ([head.gate.weight, head.gate.bias], mixture),
        ([head.weight, head.bias, contexts], alone),
    ):
        wanted = torch.autograd.grad(of, parts, retain_graph=True)
        found = torch.autograd.grad(total, parts, retain_graph=True)
        for one, other in zip(found, wanted, strict=True):
            torch.testing.assert_close(one, other)
            assert other.abs().max() > 1e-3
