import json
import os
import subprocess
import sys
from itertools import accumulate, pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from newllm_core.config import DataConfig
from newllm_core.data.make_tokenizer import load_base, train_bpe
from newllm_core.data.pieces import cut_at_words
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import ConfigError, InputError

from .cases import assert_one_line_error, encode_document, spelled_out, write

# White space of every kind, because that is where pre-tokenizers are delicate.
DELICATE = st.text(alphabet="ab1.,'s \n\r\t\x1c\x85\u2028é𝄞", max_size=60)


def word_level(*words, splitter=None):
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = splitter or pre_tokenizers.WhitespaceSplit()
    return tokenizer


@given(text=st.text())
def test_byte_level_bpe_gives_any_text_back(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


def test_trained_vocabulary_has_the_size_asked_for_control_tokens_included(bpe):
    assert bpe.vocab_size == 270
    assert bpe.base_vocab_size == 267
    assert bpe.end_id == 267
    assert bpe.role_ids == {"assistant": 268, "user": 269}


def test_bytes_only_vocabulary(byte_bpe):
    assert byte_bpe.vocab_size == 257
    assert len(byte_bpe.encode("aé𝄞")) == 1 + 2 + 4


def test_training_learns_the_most_frequent_pair(bpe):
    assert len(bpe.encode(" the")) == 1
    assert len(bpe.encode(" xyz")) == 4


def test_text_document_ends_with_the_end_token(bpe):
    ids = bpe.encode("the cat")
    assert encode_document(bpe, Document(text="the cat")) == [*ids, bpe.end_id]


def test_chat_document_is_role_content_for_each_message_then_the_end(bpe):
    chat = Document(messages=(Message("user", "the cat"), Message("assistant", "sat")))
    expected = [269, *bpe.encode("the cat"), 268, *bpe.encode("sat"), 267]
    assert encode_document(bpe, chat) == expected
    assert bpe.decode(expected) == "the catsat"
    assert spelled_out(bpe, expected) == ("<|user|>the cat<|assistant|>sat<|endoftext|>")


def test_token_document_is_taken_as_it_is_but_inside_the_vocabulary(bpe):
    assert encode_document(bpe, Document(tokens=(5, 267, 0))) == [5, 267, 0]
    with assert_one_line_error(InputError, "270", "0 to 269"):
        encode_document(bpe, Document(tokens=(5, 270)))


def test_documents_of_all_kinds_are_encoded_in_their_order(bpe):
    documents = [
        Document(tokens=(7,)),
        Document(text="the"),
        Document(messages=(Message("user", ""), Message("user", "cat"))),
        Document(text="mat"),
    ]
    together = [ids.tolist() for ids in bpe.encode_documents(documents)]
    assert together == [encode_document(bpe, document) for document in documents]
    assert together[2][:2] == [269, 269]


def test_the_end_token_closes_the_last_part_of_a_document_only(bpe):
    begun, last = Document(text="the cat", continues=True), Document(text=" sat")
    together = np.concatenate(bpe.encode_documents([begun, last])).tolist()
    assert together == encode_document(bpe, Document(text="the cat sat"))


def test_what_looks_like_a_control_token_in_a_text_is_text(bpe):
    text = "a <|endoftext|> b <|user|>"
    ids = bpe.encode(text)
    assert max(ids) < bpe.base_vocab_size
    assert bpe.decode(ids) == text


def test_models_that_look_words_up_do_not_find_control_tokens_either():
    made = TextTokenizer.adopt(word_level("?", "a", "[SEP]", "b").to_str())
    assert made.end_id == 2
    assert made.encode("a [SEP] b") == [1, 0, 3]
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("a", -1.0), ("<", -2.0), ("/s>", -2.0)]
    unigram = Tokenizer(models.Unigram(pieces, unk_id=0))
    made = TextTokenizer.adopt(unigram.to_str())
    assert made.end_id == 1
    assert made.encode("a</s>a") == [2, 3, 4, 2]


@pytest.mark.parametrize(
    ("words", "end", "size"),
    [
        (("?", "[SEP]", "</s>", "<|endoftext|>"), 3, 4),
        (("?", "[SEP]", "</s>"), 2, 3),
        (("?", "[SEP]"), 1, 2),
        (("?", "a"), 2, 3),
    ],
)
def test_end_token_is_an_existing_one_or_added(words, end, size):
    made = TextTokenizer.adopt(word_level(*words).to_str())
    assert (made.end_id, made.vocab_size, made.base_vocab_size) == (end, size, len(words))


def test_existing_role_tokens_are_used_and_control():
    tokenizer = word_level("?", "a")
    tokenizer.add_tokens(["<|user|>"])  # not special: text would become it
    made = TextTokenizer.adopt(tokenizer.to_str(), ["user", "system"])
    assert made.role_ids == {"system": 4, "user": 2}
    assert (made.base_vocab_size, made.end_id) == (3, 3)
    assert 2 not in made.encode("a <|user|> a")


def test_truncation_padding_and_templates_of_a_loaded_tokenizer_are_off():
    tokenizer = word_level("?", "a", "b", "[CLS]", "[SEP]")
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))
    made = TextTokenizer.adopt(tokenizer.to_str())
    assert made.encode("a b a b") == [1, 2, 1, 2]


def test_a_tokenizer_is_recreated_from_its_json_alone(bpe):
    again = TextTokenizer.from_json(bpe.to_json())
    chat = Document(messages=(Message("user", "the <|user|> cat"),))
    assert encode_document(again, chat) == encode_document(bpe, chat)
    for name in ("vocab_size", "base_vocab_size", "end_id", "role_ids"):
        assert getattr(again, name) == getattr(bpe, name)


def test_the_json_is_an_ordinary_tokenizer_that_closes_documents_itself(bpe):
    plain = Tokenizer.from_str(bpe.to_json())
    assert plain.encode("the cat").ids == encode_document(bpe, Document(text="the cat"))


def test_adopting_our_own_json_changes_nothing_and_new_roles_go_behind(bpe):
    assert TextTokenizer.adopt(bpe.to_json(), ["user"]).to_json() == bpe.to_json()
    more = TextTokenizer.adopt(bpe.to_json(), ["system", "user"])
    assert more.role_ids == {"assistant": 268, "system": 270, "user": 269}
    assert (more.base_vocab_size, more.vocab_size, more.end_id) == (267, 271, 267)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"post_processor": null}', "null"])
def test_json_of_something_else_is_refused(text):
    with assert_one_line_error(InputError, "not a tokenizer"):
        TextTokenizer.from_json(text)
    with assert_one_line_error(InputError, "not a tokenizer.json"):
        TextTokenizer.adopt(text)


def test_two_tokens_of_one_id_are_refused():
    spec = json.loads(word_level("?", "a").to_str())
    spec["model"]["vocab"]["b"] = 1
    with assert_one_line_error(InputError, "not one for each token"):
        TextTokenizer.adopt(json.dumps(spec))


def test_a_role_may_not_be_the_end_token(bpe):
    with assert_one_line_error(InputError, "endoftext"):
        TextTokenizer.adopt(bpe.to_json(), ["endoftext"])


def with_offsets(tokenizer, text):
    ids, offsets = [], []
    for some_ids, some_offsets in tokenizer.encodings(text):
        ids += some_ids.tolist()
        offsets += some_offsets
    return ids, offsets


@given(text=DELICATE, size=st.integers(1, 9))
def test_long_texts_encoded_in_pieces_give_the_ids_of_the_whole(bpe, text, size):
    whole = bpe.encode(text), with_offsets(bpe, text)
    with mock.patch("newllm_core.data.tokenizer.PIECE_CHARACTERS", size):
        assert (bpe.encode(text), with_offsets(bpe, text)) == whole


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("the cat\nsat on the", ["the cat", "\nsat", " on the"]),
        (" \n x \n y", [" \n x \n", " y"]),
        ("unbroken" * 3, ["unbroken" * 3]),
        ("abcde   ", ["abcde   "]),
    ],
)
def test_long_texts_are_cut_between_words(text, parts):
    assert list(cut_at_words([text], 4, 100)) == parts


@given(
    words=st.lists(st.integers(1, 25)),
    size=st.integers(1, 9),
    chunk=st.integers(1, 12),
    longest=st.integers(10, 12),
)
def test_a_word_that_is_too_long_is_cut_where_nothing_else_has_a_say(words, size, chunk, longest):
    text = "".join(" " + "x" * (length - 1) for length in words)
    chunks = [text[start : start + chunk] for start in range(0, len(text), chunk)]
    parts = list(cut_at_words(chunks, size, longest))
    assert "".join(parts) == text
    found = set(accumulate(map(len, parts)))
    starts = set(accumulate(words, initial=0))
    # A cut is between words, or every `longest` characters of a long one.
    begins = list(accumulate(words, initial=0))
    inside = {
        begin + cut
        for begin, length in zip(begins, words, strict=False)
        for cut in range(longest, length, longest)
    }
    assert found - starts <= inside
    # In a word that is longer by more than what a part must have, it is cut for certain.
    assert {cut for cut in inside if any(b < cut < e - size for b, e in pairwise(begins))} <= found


def test_added_words_with_white_space_are_not_cut(bpe, monkeypatch):
    plain = Tokenizer.from_str(bpe.to_json())
    plain.add_tokens(["    "])
    tokenizer = TextTokenizer.adopt(plain.to_str())
    whole = tokenizer.encode("cats    sat")
    monkeypatch.setattr("newllm_core.data.tokenizer.PIECE_CHARACTERS", 4)
    assert tokenizer.encode("cats    sat") == whole
    assert 270 in whole


@given(text=DELICATE)
def test_offsets_cover_the_text_in_order(bpe, text):
    ids, offsets = with_offsets(bpe, text)
    assert ids == bpe.encode(text)
    covered = [index for start, end in offsets for index in range(start, end)]
    assert sorted(set(covered)) == list(range(len(text)))
    assert covered == sorted(covered)


def test_vocabulary_without_room_for_bytes_is_refused():
    with assert_one_line_error(ConfigError, "259", "data.vocab_size is 258"):
        train_bpe(["a"], 258, {"user", "assistant"})


def test_training_is_the_same_in_another_process(bpe):
    code = (
        "from newllm_core.data.make_tokenizer import train_bpe; import sys;"
        "texts = ['the cat sat on the mat.\\nthe dog sat on the log.\\n'] * 20;"
        "sys.stdout.write(train_bpe(texts, 270, {'user', 'assistant'}).to_json())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    assert done.stdout.decode("utf-8") == bpe.to_json()


def write_gpt2(folder, vocabulary_name, merges_name):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "th", "<|endoftext|>"])}
    write(folder / vocabulary_name, json.dumps(vocabulary))
    write(folder / merges_name, "#version: 0.2\nt h\n")
    return folder


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
@pytest.mark.parametrize("given_name", ["", 0, 1])
def test_gpt2_files_are_read_by_folder_or_either_file(tmp_path, names, given_name):
    folder = write_gpt2(tmp_path / "gpt2", *names)
    path = folder if given_name == "" else folder / names[given_name]
    base = load_base(DataConfig(tokenizer="gpt2", tokenizer_path=str(path)))
    made = TextTokenizer.adopt(base)
    assert (made.vocab_size, made.base_vocab_size, made.end_id) == (258, 258, 257)
    assert made.encode("th") == [256]
    assert made.decode(made.encode("é <|endoftext|>")) == "é <|endoftext|>"


def test_real_gpt2_ids(shared_data):
    path = str(shared_data / "gpt2-tokenizer")
    made = TextTokenizer.adopt(load_base(DataConfig(tokenizer="gpt2", tokenizer_path=path)))
    assert (made.vocab_size, made.base_vocab_size, made.end_id) == (50257, 50257, 50256)
    assert made.encode("Hello world") == [15496, 995]
    assert 50256 not in made.encode("<|endoftext|>")


def test_any_tokenizer_json_by_path_or_folder(tmp_path):
    tokenizer = word_level("?", "a")
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        base = load_base(DataConfig(tokenizer=str(path)))
        assert TextTokenizer.adopt(base).encode("a b") == [1, 0]


def test_bpe_needs_no_files():
    assert load_base(DataConfig()) is None


def test_tokenizer_errors(tmp_path):
    with assert_one_line_error(InputError, tmp_path / "no", "does not exist", "bpe, gpt2"):
        load_base(DataConfig(tokenizer=str(tmp_path / "no")))
    with assert_one_line_error(InputError, "data.tokenizer_path is gpt2, which", "leave it out"):
        load_base(DataConfig(tokenizer="gpt2", tokenizer_path="gpt2"))
    with assert_one_line_error(InputError, tmp_path, "vocab.json and merges.txt"):
        load_base(DataConfig(tokenizer="gpt2", tokenizer_path=str(tmp_path)))
    with assert_one_line_error(ConfigError, "tokenizer_path", "gpt2"):
        load_base(DataConfig(tokenizer_path=str(tmp_path)))
    broken = write(tmp_path / "tokenizer.json", '{"model": 3}')
    with assert_one_line_error(InputError, broken, "not a tokenizer.json"):
        load_base(DataConfig(tokenizer=str(broken)))
    broken.write_bytes(b"\xff\xfe")
    with assert_one_line_error(InputError, broken, "not UTF-8"):
        load_base(DataConfig(tokenizer=str(broken)))
    (tmp_path / "vocab.json").write_text("[]", encoding="utf-8")
    (tmp_path / "merges.txt").write_text("t", encoding="utf-8")
    with assert_one_line_error(InputError, tmp_path / "vocab.json"):
        load_base(DataConfig(tokenizer="gpt2", tokenizer_path=str(tmp_path / "vocab.json")))


def test_gpt2_without_files_and_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *arguments: None)
    with assert_one_line_error(InputError, "gpt2", "--tokenizer-path", "HF_HUB_OFFLINE"):
        load_base(DataConfig(tokenizer="gpt2"))
