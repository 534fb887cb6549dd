"""No text becomes a special token, and nothing else changes for it."""

import json
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from newllm_core.data.control_tokens import HIDDEN
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.tokenizer import TextTokenizer
from tests.forked import SERVER

from .layouts import ADOPTED, LAYOUTS, SPECIAL

WIDE_END = "＜/s＞"
LITERALS = [*SPECIAL, "<unk>", "[SEP]", "[UNK]", "<|endoftext|>", "<|user|>", WIDE_END, "<0x41>"]
ORDINARY = [" ", "  ", "\n", "the", "cat", "sat", "café", "ça", "日本語", "日", ".", "𝄞", "ſ", "'s"]
LOSSLESS = ["byte-level", "byte-level-whole-words", "bpe-bytes", "bpe-bytes-no-prefix"]


def texts(*parts):
    return st.lists(st.sampled_from(parts) | st.text(max_size=2), max_size=8).map("".join)


def without_text(tokenizer):
    ids = range(tokenizer.vocab_size)
    return {i for i in ids if tokenizer.spelling(i) is None} - {tokenizer.unknown_id}


@pytest.mark.parametrize("name", ADOPTED)
@settings(max_examples=40)
@given(text=texts(*LITERALS, *ORDINARY, "<tab>", "Straße", HIDDEN[0], HIDDEN + "<s>"))
def test_no_text_yields_one_and_the_file_alone_sees_to_it(name, text):
    tokenizer = ADOPTED[name]
    ids = tokenizer.encode(text)
    assert not set(ids) & without_text(tokenizer)
    plain = Tokenizer.from_str(tokenizer.to_json())
    assert plain.encode(text).ids == [*ids, tokenizer.end_id]


@pytest.mark.parametrize("name", ADOPTED)
@settings(max_examples=25)
@given(text=st.lists(st.sampled_from(ORDINARY), max_size=8).map("".join))
def test_ordinary_text_has_the_ids_that_the_tokenizer_had(name, text):
    known = LAYOUTS[name].encode(text, add_special_tokens=False).ids
    assert ADOPTED[name].encode(text) == known


@pytest.fixture(scope="module")
def another_process():
    with ProcessPoolExecutor(1, mp_context=SERVER) as pool:
        yield pool


def ids_of(tokenizer):
    return [tokenizer.encode(literal) for literal in LITERALS]


@pytest.mark.parametrize("name", ADOPTED)
@pytest.mark.parametrize("copied", ["to another process", "deepcopy"])
def test_a_copy_is_as_safe(name, copied, another_process):
    tokenizer = ADOPTED[name]
    if copied == "deepcopy":
        found = ids_of(deepcopy(tokenizer))
    else:
        found = another_process.submit(ids_of, tokenizer).result()
    assert found == ids_of(tokenizer)


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("literal", LITERALS)
def test_literals_are_text_that_comes_back(name, literal):
    text = f"the {literal} café{literal}{literal}"
    assert ADOPTED[name].decode(ADOPTED[name].encode(text)) == text


def test_literals_come_back_where_a_model_looks_for_the_likeliest_pieces():
    text = "the <pad> <s></s> <mask><unk> <0x41>"
    ids = ADOPTED["unigram-bytes"].encode(text)
    assert ADOPTED["unigram-bytes"].decode(ids) == text
    assert ADOPTED["unigram-bytes"].unknown_id not in ids


@pytest.mark.parametrize("name", ["words", "unigram", "unigram-bytes"])
def test_documents_have_one_end_whatever_a_normalizer_makes_of_them(name):
    tokenizer = ADOPTED[name]
    texts = [f"the {WIDE_END} cat{WIDE_END}", WIDE_END, f"{WIDE_END}</s>"]
    documents = [Document(text=text) for text in texts]
    chat = Document(messages=(Message("user", f"<|user|>{WIDE_END}"),))
    for ids in tokenizer.encode_documents([*documents, chat]):
        assert ids.tolist().count(tokenizer.end_id) == 1
        assert ids[-1] == tokenizer.end_id
    assert ids.tolist().count(tokenizer.role_ids["user"]) == 1


def test_a_file_that_shows_its_special_tokens_is_read_as_safely():
    tokenizer = ADOPTED["unigram"]
    plain = Tokenizer.from_str(LAYOUTS["unigram"].to_str())
    plain.add_special_tokens(["<|user|>"])
    record = json.loads(tokenizer.to_json())["post_processor"]
    shown = json.loads(plain.to_str()) | {"post_processor": record}
    again = TextTokenizer.from_json(json.dumps(shown))
    for literal in LITERALS:
        assert again.encode(literal) == tokenizer.encode(literal)


def test_a_special_token_that_merges_make_is_made_no_more():
    vocabulary = {piece: n for n, piece in enumerate(["<", "s", ">", "<s", "<s>", "<s><"])}
    merges = [("<", "s"), ("<s", ">"), ("<s>", "<")]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.add_special_tokens(["<s>"])
    made = TextTokenizer.adopt(tokenizer.to_str())
    assert made.encode("<s><s") == [3, 2, 3]


def test_what_stands_for_unknown_text_ends_no_document():
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = TextTokenizer.adopt(tokenizer.to_str())
    assert made.encode("a b </s>") == [1, 0, 0]
    assert made.end_id == 2


def test_added_words_that_are_letters_of_bytes_are_text():
    made = ADOPTED["byte-level"]  # has é added
    assert b"".join(map(made.bytes_of, made.encode("é"))) == "é".encode()
    assert made.decode(made.encode("é 驗 é")) == "é 驗 é"


@pytest.mark.parametrize("words", [{"?": 0, "a": 2, "</s>": 9}, {"?": 1, "a": 5, "b": 3}])
def test_ids_may_have_gaps(words):
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = TextTokenizer.adopt(tokenizer.to_str(), {"user"})
    most = max(words.values())
    assert made.end_id == words.get("</s>", most + 1)
    assert made.role_ids["user"] == made.vocab_size - 1
    assert made.encode("a ? </s>") == [words["a"], words["?"], words["?"]]
    assert TextTokenizer.adopt(made.to_json(), {"system"}).encode("a") == [words["a"]]
