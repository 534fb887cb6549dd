import math
import tracemalloc

import pytest
import torch
from recurrence import token_formula

from newllm_core.config import ModelConfig
from newllm_core.data.prepared import open_dataset
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.evaluation import texts
from newllm_core.evaluation.splits import evaluate
from newllm_core.evaluation.texts import evaluate_text
from newllm_core.model.language_model import LanguageModel
from tests.data.cases import Recorder
from tests.data.cases import run as prepare
from tests.generation.cases import TOKENIZERS

TEXT = "the cat sat on the mat.\n\nça va, é? 日本 𝄞 here.\r\n\tThe END <|user|> of it" * 20


def make_model(vocab_size, *, num_heads=1, cell="residual"):
    """A model whose heads have opinions: fresh ones say almost nothing."""
    config = ModelConfig(context_dim=8, embed_dim=8, cell=cell)
    model = LanguageModel(config, vocab_size, num_heads=num_heads)
    for number, head in enumerate(model.token_output):
        generator = torch.Generator().manual_seed(number)
        torch.nn.init.normal_(head.weight, std=0.8, generator=generator)
    return model


@pytest.fixture(params=["bpe", "bytes", "word-pieces"], scope="module")
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="module")
def model(tokenizer):
    # A gated cell forgets a quarter of its state with every token.
    return make_model(tokenizer.vocab_size, num_heads=2, cell="gated").double()


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8", newline="")
    return path


def naive_nats(model, ids, start):
    """Of the last head, one token at a time."""
    state = torch.zeros(8, dtype=torch.float64)
    nats = 0.0
    with torch.no_grad():
        for read, target in zip([start, *ids[:-1]], ids, strict=True):
            state = token_formula(model, read, state)[-1]
            nats -= float(torch.log_softmax(model.token_output[-1](state), -1)[target])
    return nats


def lost_bytes(tokenizer, text):
    """Of characters that tokens do not give back, one by one."""
    given = list(tokenizer.decode(tokenizer.encode(text)))
    lost = 0
    for letter in text:
        if letter in given:
            given.remove(letter)
        else:
            lost += len(letter.encode())
    return lost


def test_figures_are_those_of_the_whole_text_read_one_by_one(model, tokenizer, path):
    found = evaluate_text(model, tokenizer, path, head_weights=[1, 3])
    ids = [*tokenizer.encode(TEXT), tokenizer.end_id]
    nats = naive_nats(model, ids, tokenizer.end_id)
    size, words, line_ends = len(TEXT.encode()), len(TEXT.split()), TEXT.count("\n")
    last = found["heads"][-1]
    assert last["loss"] == pytest.approx(nats / len(ids), rel=1e-9)
    # Figures per unit of text count what tokens do not give back as it is.
    lost = lost_bytes(tokenizer, TEXT) * math.log(256)
    nats += lost
    assert last["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-9)
    assert last["word_perplexity"] == pytest.approx(math.exp(nats / (words + line_ends)))
    assert last["whitespace_word_perplexity"] == pytest.approx(math.exp(nats / words))
    loss = (found["heads"][0]["loss"] + 3 * last["loss"]) / 4
    assert found["loss"] == pytest.approx(loss)
    together = math.exp((loss * len(ids) + lost) / words)
    assert found["whitespace_word_perplexity"] == pytest.approx(together)
    assert last["bits_per_character"] == pytest.approx(nats / math.log(2) / len(TEXT))
    counts = {key: found[key] for key in found if key.startswith("num_")}
    assert counts == {
        "num_tokens": len(ids),
        "num_bytes": size,
        "num_characters": len(TEXT),
        "num_words": words + line_ends,
        "num_whitespace_words": words,
    }


@pytest.mark.parametrize(
    "text",
    [
        "吾輩は猫である。名前はまだ無い。\nどこで生れたかとんと見当がつかぬ。\n",
        "昔者庄周梦为胡蝶，栩栩然胡蝶也。\n不知周也。 俄然觉，则蘧蘧然周也。\n",
        "ในน้ำมีปลาในนามีข้าว เจ้าเมืองบ่เอาจกอบในไพร่ลู่ทาง\n",
    ],
)
def test_what_has_hardly_any_spaces_has_no_words(model, tokenizer, text):
    found = evaluate_text(model, tokenizer, text * 3, head_weights=[1, 1])
    bits = found["loss"] * found["num_tokens"] / math.log(2)
    bits += lost_bytes(tokenizer, text * 3) * 8
    assert found["bits_per_character"] == pytest.approx(bits / (3 * len(text)))
    for figures in (found, *found["heads"]):
        assert figures["word_perplexity"] is figures["whitespace_word_perplexity"] is None
    assert found["num_words"] is found["num_whitespace_words"] is None
    # Somebody who takes lines for words can say so.
    asked = evaluate_text(model, tokenizer, text * 3, head_weights=[1, 1], min_space_share=0)
    assert asked["num_words"] == len(text.split()) * 3 + text.count("\n") * 3


@pytest.mark.parametrize(
    "text",
    ["Rechtsschutzversicherungen zahlen Verkehrsunfälle nicht immer.\n" * 9, "word\n", "a b"],
)
def test_long_words_and_short_texts_have_words(model, tokenizer, text):
    assert evaluate_text(model, tokenizer, text, head_weights=[1, 1])["num_words"] is not None


@pytest.mark.parametrize("piece", [7, 300, 10**6])
def test_the_size_of_pieces_changes_nothing(model, tokenizer, path, piece, monkeypatch):
    whole = evaluate_text(model, tokenizer, path, head_weights=[1, 1])
    monkeypatch.setattr(texts, "PIECE_CHARACTERS", piece)
    monkeypatch.setattr("newllm_core.data.sources.decoding.CHUNK_BYTES", 16 * piece)
    assert evaluate_text(model, tokenizer, path, head_weights=[1, 1]) == whole


@pytest.mark.parametrize("segment", [97, 640])
def test_segments_go_on_from_each_other(model, tokenizer, path, segment, monkeypatch):
    whole = evaluate_text(model, tokenizer, path, head_weights=[1, 1])
    monkeypatch.setattr(texts, "SEGMENT_TOKENS", segment)
    monkeypatch.setattr(texts, "PIECE_CHARACTERS", 50)
    found = evaluate_text(model, tokenizer, path, head_weights=[1, 1])
    assert found["loss"] == pytest.approx(whole["loss"], rel=1e-7)
    assert {**found, "loss": 0, "heads": 0} == pytest.approx({**whole, "loss": 0, "heads": 0})


def test_a_file_is_what_prepare_makes_of_it(tmp_path, path):
    other = tmp_path / "other.txt"
    other.write_text("the cat sat on the mat.\nça va, é?\n" * 30, encoding="utf-8")
    data = tmp_path / "data"
    options = {"source": "text-file", "input": other, "val_input": path}
    prepare(data, **options, val_token_policy="keep", vocab_size=300)
    dataset = open_dataset(data)
    tokenizer = TextTokenizer.from_json(dataset.tokenizer_json)
    model = make_model(tokenizer.vocab_size)
    by_file = evaluate_text(model, tokenizer, path, head_weights=[1])
    prepared = evaluate(model, dataset.validation, end_id=tokenizer.end_id, head_weights=[1])
    assert {key: by_file[key] for key in prepared if key != "heads"} == {
        key: value for key, value in prepared.items() if key != "heads"
    }


def test_memory_does_not_grow_with_the_text(tmp_path, monkeypatch):
    tokenizer = TOKENIZERS["bpe"]()
    model = make_model(tokenizer.vocab_size, cell="mingru")
    path = tmp_path / "text.txt"
    monkeypatch.setattr(texts, "PIECE_CHARACTERS", 100)
    monkeypatch.setattr("newllm_core.data.sources.decoding.CHUNK_BYTES", 1600)
    monkeypatch.setattr(texts, "SEGMENT_TOKENS", 60)
    peaks = []
    for copies in (50, 300, 4000):  # the first one fills caches
        path.write_text("the cat sat on the mat.\n" * copies, encoding="utf-8")
        tracemalloc.start()
        evaluate_text(model, tokenizer, path, head_weights=[1])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < path.stat().st_size / 2


@pytest.mark.parametrize(
    ("name", "text", "unknown", "lost"),
    [
        ("word-pieces", "the cat 🙂 日本 the 🙂🙂", 3 / 7, (12 + 6 + 3) / 32),
        ("word-pieces", "the\ncat The", 1 / 4, 4 / 11),  # a line end is a space
        ("byte-fallback", "the cat 🙂 日本 <unk>", 0, 0),
        ("bpe", "the cat 🙂 日本 the 🙂🙂", 0, 0),
    ],
)
def test_what_tokens_do_not_give_back_is_said_and_counted(name, text, unknown, lost):
    tokenizer = TOKENIZERS[name]()
    model = make_model(tokenizer.vocab_size)
    with torch.no_grad():
        for head in model.token_output:
            head.weight.zero_()
    found = evaluate_text(model, tokenizer, text, head_weights=[1])
    assert found["unknown_share"] == pytest.approx(unknown)
    assert found["lost_share"] == pytest.approx(lost)
    # A model without opinions.
    bits = found["num_tokens"] * math.log2(tokenizer.vocab_size) / len(text.encode())
    assert found["bits_per_byte"] == pytest.approx(bits + 8 * lost, rel=1e-5)


def test_a_byte_order_mark_is_no_text(model, tokenizer, path):
    plain = evaluate_text(model, tokenizer, path, head_weights=[1, 1])
    path.write_text(TEXT, encoding="utf-8-sig", newline="")
    assert evaluate_text(model, tokenizer, path, head_weights=[1, 1]) == plain


def test_progress_is_in_bytes_and_ends_with_the_file(model, tokenizer, path):
    watcher = Recorder()
    evaluate_text(model, tokenizer, path, head_weights=[1, 1], progress=watcher)
    assert watcher.done == {"evaluating": [len(TEXT.encode())] * 2 + ["bytes"]}
    assert f"{len(TEXT.encode()):,} bytes" in watcher.messages[0]


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "empty"), (b"\xef\xbb\xbf", "empty"), (b"a\n\xff", "line 2")]
)
def test_files_without_text_are_refused(tmp_path, content, words):
    tokenizer = TOKENIZERS["bytes"]()
    model = make_model(tokenizer.vocab_size)
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        evaluate_text(model, tokenizer, path, head_weights=[1])
    with pytest.raises(InputError, match="no such file"):
        evaluate_text(model, tokenizer, tmp_path / "none", head_weights=[1])
