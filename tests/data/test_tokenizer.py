import json
from itertools import accumulate, pairwise
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, processors

from newllm_core.data.pieces import cut_at_words
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError

from .cases import assert_one_line_error, encode_document, spelled_out, word_level

# White space of every kind, because that is where pre-tokenizers are delicate.
DELICATE = st.text(alphabet="ab1.,'s \n\r\t\x1c\x85\u2028é𝄞", max_size=60)


@given(text=st.text())
def test_byte_level_bpe_gives_any_text_back(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


def test_bytes_only_vocabulary(byte_bpe):
    assert byte_bpe.vocab_size == 257
    assert len(byte_bpe.encode("aé𝄞")) == 1 + 2 + 4


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


def test_letters_that_nothing_makes_bytes_again_are_not_lossless(byte_bpe):
    spec = json.loads(byte_bpe.to_json())
    assert TextTokenizer(json.dumps(spec)).is_lossless
    assert not TextTokenizer(json.dumps(spec | {"decoder": None})).is_lossless
