import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recurrence import token_formula

from newllm_core.config import ModelConfig
from newllm_core.errors import InputError
from newllm_core.evaluation import splits
from newllm_core.evaluation.splits import evaluate
from newllm_core.model.language_model import LanguageModel
from newllm_core.trajectory import text as text_module
from newllm_core.trajectory.sequential import unroll
from newllm_core.trajectory.text import contexts_of_text, inputs_at

VOCAB, END = 11, 10


def text_of(length, *, documents=1, seed=0):
    tokens = np.random.default_rng(seed).integers(END, size=length).astype(np.uint16)
    starts = np.linspace(0, length, documents + 1).astype(np.int64)
    tokens[starts[1:] - 1] = END
    sizes = np.diff(starts) * 2 + 1
    return SimpleNamespace(
        tokens=tokens,
        document_starts=starts,
        document_bytes=sizes,
        num_bytes=int(sizes.sum()),
        num_words=length // 3,
        num_characters=length + 7,
        unknown_share=0.0,
        lost_share=0.0,
    )


def model_of(*, num_heads=1, **options):
    shape = {"context_dim": 6, "embed_dim": 5, "layer_structure": (1, 1)}
    config, cell = ModelConfig(**shape | options), {"hidden_dim": 9}
    model = LanguageModel(config, VOCAB, cell=cell, num_heads=num_heads).double()
    # Fresh heads say almost nothing; these have opinions.
    for head in model.token_output:
        torch.nn.init.normal_(head.weight, std=0.7, generator=torch.Generator().manual_seed(1))
    return model


def test_losses_are_not_rounded_where_products_are():
    model = model_of().float()
    model.product_dtype = torch.bfloat16
    torch.nn.init.zeros_(model.heads()[0].weight)
    found = evaluate(model, text_of(500), end_id=END, head_weights=[1])
    # log 11 is 2.3979; in bfloat16 it is 2.4062.
    assert found["loss"] == pytest.approx(math.log(VOCAB), abs=1e-5)
    torch.nn.init.normal_(model.heads()[0].weight, generator=torch.Generator().manual_seed(1))
    narrow = evaluate(model, text_of(500), end_id=END, head_weights=[1])["loss"]
    model.product_dtype = None
    wide = evaluate(model, text_of(500), end_id=END, head_weights=[1])["loss"]
    assert 0 < abs(narrow - wide) < 5e-3


def naive_figures(model, text, head, blocks):
    """One token at a time from a state that is never reset."""
    state = model.start(1)[0]
    nats = squares = hits = 0
    read = END
    for target in text.tokens.tolist():
        contexts = token_formula(model, read, state)
        logits = model.token_output[head](contexts[blocks - 1])
        state = contexts[-1]
        lost = float(torch.log(torch.exp(logits).sum()) - logits[target])
        nats, squares = nats + lost, squares + lost**2
        hits += int(logits.argmax()) == target
        read = target
    count = len(text.tokens)
    error = (squares / count - (nats / count) ** 2) ** 0.5 / count**0.5
    per_byte = count / math.log(2) / text.num_bytes
    return {
        "loss": nats / count,
        "loss_stderr": error,
        "bits_per_byte_stderr": error * per_byte,
        "perplexity": math.exp(nats / count),
        "accuracy": hits / count,
        "bits_per_byte": nats / math.log(2) / text.num_bytes,
        "bits_per_character": nats / math.log(2) / text.num_characters,
        "word_perplexity": math.exp(nats / text.num_words),
    }


def test_figures_equal_a_naive_loop(exact_device):
    model, text = model_of(num_heads=2).to(exact_device), text_of(83, documents=4)
    found = evaluate(model, text, end_id=END, head_weights=[0.5, 1.2])
    with torch.no_grad():
        heads = [naive_figures(model, text, 0, 1), naive_figures(model, text, 1, 2)]
    for head, expected in zip(found["heads"], heads, strict=True):
        assert head == pytest.approx(expected, rel=1e-10, abs=1e-10)
    loss = (0.5 * heads[0]["loss"] + 1.2 * heads[1]["loss"]) / 1.7
    assert found["loss"] == pytest.approx(loss, abs=1e-10)
    assert found["perplexity"] == pytest.approx(math.exp(loss))
    assert found["bits_per_byte"] == pytest.approx(loss * 83 / math.log(2) / text.num_bytes)
    assert found["word_perplexity"] == pytest.approx(math.exp(loss * 83 / text.num_words))
    accuracy = (0.5 * heads[0]["accuracy"] + 1.2 * heads[1]["accuracy"]) / 1.7
    assert found["accuracy"] == pytest.approx(accuracy)
    assert (found["num_tokens"], found["num_bytes"]) == (83, text.num_bytes)


def evaluate_in(streams, warmup, monkeypatch, *arguments, **options):
    """`evaluate`, read in so many streams."""
    reading = partial(contexts_of_text, num_streams=streams, warmup=warmup)
    monkeypatch.setattr(splits, "contexts_of_text", reading)
    return evaluate(*arguments, **options)


def test_many_streams_are_close_to_one(monkeypatch):
    # A gated cell forgets a quarter of its state with every token.
    model, text = model_of(cell="gated"), text_of(1201)
    options = {"end_id": END, "head_weights": [1.0]}
    one = evaluate_in(1, 0, monkeypatch, model, text, **options)
    many = evaluate_in(7, 64, monkeypatch, model, text, **options)
    rough = evaluate_in(7, 1, monkeypatch, model, text, **options)
    assert many["num_tokens"] == one["num_tokens"] == 1201
    assert many["loss"] == pytest.approx(one["loss"], abs=1e-8)
    assert abs(rough["loss"] - one["loss"]) > abs(many["loss"] - one["loss"])


def test_memory_bounds_do_not_change_figures(monkeypatch):
    model, text = model_of(), text_of(157)
    options = {"end_id": END, "head_weights": [1.0]}
    whole = evaluate_in(3, 11, monkeypatch, model, text, **options)
    monkeypatch.setattr(text_module, "ROWS_AT_ONCE", 14)
    monkeypatch.setattr(splits, "LOGITS_AT_ONCE", 50)
    assert evaluate(model, text, **options)["loss"] == pytest.approx(whole["loss"], rel=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    length=st.integers(1, 130),
    streams=st.integers(1, 9),
    warmup=st.integers(0, 12),
    rows=st.integers(1, 40),
)
def test_every_token_is_read_once(length, streams, warmup, rows):
    tokens = text_of(length).tokens
    before = text_module.ROWS_AT_ONCE
    text_module.ROWS_AT_ONCE = rows
    try:
        model = model_of(layer_structure=(1,))
        chunks = list(
            contexts_of_text(model, tokens, end_id=END, num_streams=streams, warmup=warmup)
        )
    finally:
        text_module.ROWS_AT_ONCE = before
    positions = np.concatenate([chunk.positions_N for chunk in chunks])
    targets = np.concatenate([chunk.targets_N.numpy() for chunk in chunks])
    assert sorted(positions.tolist()) == list(range(length))
    assert (targets == tokens[positions]).all()
    assert all(len(r.contexts[0]) == len(r.positions_N) for r in chunks)


def test_inputs_are_the_tokens_before():
    tokens = np.array([4, 5, 6], np.uint16)
    assert inputs_at(tokens, np.array([[0, 1, 2]]), END).tolist() == [[END, 4, 5]]


def test_reading_leaves_gradients_on_for_whoever_iterates():
    chunks = contexts_of_text(model_of(), text_of(50).tokens, end_id=END)
    next(chunks)
    assert torch.is_grad_enabled()


def test_later_tokens_change_nothing_before_them():
    model = model_of(num_heads=2).float()
    tokens = torch.randint(VOCAB, (3, 17), generator=torch.Generator().manual_seed(0))
    for t in (0, 8, 16):
        other = tokens.clone()
        other[:, t:] = (other[:, t:] + 1) % VOCAB
        contexts, changed = (unroll(model, ids, model.start(3)) for ids in (tokens, other))
        for a, b in zip(contexts, changed, strict=True):
            assert torch.equal(a[:, :t], b[:, :t])
            assert not torch.equal(a[:, t], b[:, t])
        for a, b in zip(model.logits(contexts), model.logits(changed), strict=True):
            assert torch.equal(a[:, :t], b[:, :t])


def test_a_limit_takes_whole_documents():
    model, text = model_of(), text_of(100, documents=4)
    options = {"end_id": END, "head_weights": [1.0]}
    for limit, documents in ((25, 1), (49, 1), (50, 2), (99, 3), (100, 4), (10**6, 4)):
        found = evaluate(model, text, max_tokens=limit, **options)
        assert found["num_tokens"] == 25 * documents
        assert found["num_bytes"] == 51 * documents
        for figure in ("word_perplexity", "bits_per_character", "num_characters"):
            assert (found[figure] is None) == (documents < 4)


def test_a_limit_takes_the_beginning_of_a_longer_document():
    model, text = model_of(), text_of(100, documents=4)
    options = {"end_id": END, "head_weights": [1.0], "max_tokens": 10}
    found = evaluate(model, text, bytes_of=lambda ids: 3 * len(ids), **options)
    text.tokens, text.document_starts = text.tokens[:10], np.array([0, 10])
    text.document_bytes = np.array([30])
    whole = evaluate(model, text, **options)
    assert (found["num_tokens"], found["num_bytes"]) == (10, 30)
    assert [found[name] for name in ("loss", "bits_per_byte")] == [
        whole[name] for name in ("loss", "bits_per_byte")
    ]
    assert evaluate(model, text_of(100), **options)["bits_per_byte"] is None


def test_figures_that_do_not_exist_are_none():
    text = text_of(20)
    text.document_bytes, text.num_words, text.num_characters = np.zeros(1, np.int64), None, None
    found = evaluate(model_of(), text, end_id=END, head_weights=[1.0])
    for figure in ("bits_per_byte", "bits_per_byte_stderr", "bits_per_character"):
        assert found[figure] is found["heads"][0][figure] is None
    assert [found[f"num_{what}"] for what in ("bytes", "characters", "words")] == [None] * 3
    assert found["word_perplexity"] is None
    assert found["loss"] > 0


def test_nothing_to_evaluate_is_said():
    empty = SimpleNamespace(
        tokens=np.zeros(0, np.uint16),
        document_starts=np.zeros(1, np.int64),
        document_bytes=np.zeros(0, np.int64),
        num_words=0,
        num_characters=0,
    )
    with pytest.raises(InputError, match="no tokens"):
        evaluate(model_of(), empty, end_id=END, head_weights=[1.0])


def test_however_wrong_a_head_is_it_pays_in_full():
    model, text = model_of(), text_of(40)
    with torch.no_grad():
        model.token_output[0].bias[END] = 500.0
    found = evaluate(model, text, end_id=END, head_weights=[1.0])
    wrong = int((text.tokens != END).sum())
    assert found["loss"] == pytest.approx(500 * wrong / 40, abs=5)


@pytest.mark.parametrize("length", [200, 1000, 4000])
def test_streams_are_never_mostly_warm_up(length, monkeypatch):
    read = []

    def counting(inner, model, inputs_BT, *others):
        read.append(inputs_BT.numel())
        return inner(model, inputs_BT, *others)

    for name in ("_unroll", "read_to_end"):
        monkeypatch.setattr(text_module, name, partial(counting, getattr(text_module, name)))
    for _ in contexts_of_text(model_of(), text_of(length).tokens, end_id=END, warmup=100):
        pass
    assert length <= sum(read) <= 1.5 * length
