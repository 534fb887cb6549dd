import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from newllm_core.data.make_tokenizer import train_bpe
from newllm_core.data.measures import count_bytes, count_lines, count_words
from newllm_core.data.policy import PolicyReport, ValidationPolicy, without_lines
from newllm_core.data.sources.base import Document, Message
from newllm_core.data.tokenizer import TextTokenizer

from .cases import encode_document


def lines_of(text):
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def seen_by(tokenizer, *documents):
    seen = np.zeros(tokenizer.vocab_size, dtype=bool)
    for ids in tokenizer.encode_documents(documents):
        seen[ids] = True
    return seen


def applied(policy, tokenizer, document):
    return policy.apply(document, tokenizer.encode_documents([document])[0])


def test_lines_with_a_byte_that_training_never_saw_are_dropped(byte_bpe):
    policy = ValidationPolicy("drop", byte_bpe, seen_by(byte_bpe, Document(text="abc\n")))
    kept = applied(policy, byte_bpe, Document(text="ab\nxé\nc\n\nb"))
    assert kept == Document(text="ab\nc\n\nb")
    assert applied(policy, byte_bpe, Document(text="x")) is None
    assert applied(policy, byte_bpe, Document(text="a")) == Document(text="a")
    assert policy.report == PolicyReport(
        policy="drop",
        unseen_types=3,  # x and the two bytes of é
        lines=5 + 1 + 1,
        dropped_lines=2,
        bytes=11 + 1 + 1,
        dropped_bytes=5,
        dropped_documents=1,
    )
    assert policy.report.dropped_line_share == 2 / 7
    assert policy.report.dropped_byte_share == 5 / 13


def test_keep_counts_only(byte_bpe):
    policy = ValidationPolicy("keep", byte_bpe, seen_by(byte_bpe, Document(text="abc\n")))
    document = Document(text="ab\nxé\nc")
    assert applied(policy, byte_bpe, document) is document
    assert policy.report == PolicyReport("keep", 3, 3, 0, 8, 0, 0)


def test_chats_lose_lines_then_messages_then_themselves():
    tokenizer = train_bpe([], 259, {"user", "system"})
    train = Document(messages=(Message("user", "abc\n"),))
    policy = ValidationPolicy("drop", tokenizer, seen_by(tokenizer, train))
    chat = Document(
        messages=(
            Message("system", "abc\nab"),  # a role that training never saw
            Message("user", "ab\nx\nc"),
            Message("user", "x"),
            Message("user", ""),  # was empty before
        )
    )
    assert applied(policy, tokenizer, chat) == Document(
        messages=(Message("user", "ab\nc"), Message("user", ""))
    )
    assert policy.report == PolicyReport("drop", 2, 6, 4, 13, 9, 0)
    only = Document(messages=(Message("user", "x"), Message("user", "")))
    assert applied(policy, tokenizer, only) is None
    assert policy.report.dropped_documents == 1


def test_token_documents_go_as_a_whole(byte_bpe):
    policy = ValidationPolicy("drop", byte_bpe, seen_by(byte_bpe, Document(text="ab\n")))
    a, b, end = encode_document(byte_bpe, Document(text="ab"))
    (x,) = byte_bpe.encode("x")
    good = Document(tokens=(a, b, end, b))
    assert applied(policy, byte_bpe, good) is good
    assert applied(policy, byte_bpe, Document(tokens=(a, x))) is None
    assert policy.report == PolicyReport("drop", 1, 2, 1, 0, 0, 1)


def test_nothing_stays_where_training_never_saw_the_end_token(byte_bpe):
    policy = ValidationPolicy("drop", byte_bpe, seen_by(byte_bpe, Document(tokens=(1, 2))))
    seen_text = byte_bpe.decode([1, 2])
    assert applied(policy, byte_bpe, Document(text=seen_text)) is None


def test_tokens_that_form_across_a_gap_are_dropped_too():
    letters = {letter: i for i, letter in enumerate(["a", "b", "c", "x", "Ċ", "aĊ", "aĊb"])}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[("a", "Ċ"), ("aĊ", "b")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    made = TextTokenizer.adopt(tokenizer.to_str())
    assert made.encode("a\nx\nbb\nc") == [5, 3, 4, 1, 1, 4, 2]
    policy = ValidationPolicy(
        "drop", made, seen_by(made, Document(text="a\nc"), Document(text="b\n"))
    )
    # Without "x\n" there would be "a\nb", one token that training never saw: both lines go.
    assert applied(policy, made, Document(text="a\nx\nbb\nc")) == Document(text="c")
    assert policy.report.dropped_lines == 3


@given(
    train=st.text(alphabet="abc \n", max_size=30),
    text=st.text(alphabet="abcdé \n", min_size=1, max_size=40),
)
def test_what_is_kept_has_seen_tokens_only_and_is_lines_of_the_text(bpe, train, text):
    seen = seen_by(bpe, Document(text=train))
    policy = ValidationPolicy("drop", bpe, seen)
    kept = applied(policy, bpe, Document(text=text))
    lines = lines_of(text)
    left = [] if kept is None else lines_of(kept.text)
    if kept is not None:
        assert seen[encode_document(bpe, kept)].all()
    remaining = iter(lines)
    assert all(line in remaining for line in left)
    report = policy.report
    assert report.dropped_lines == len(lines) - len(left)
    assert report.dropped_bytes == count_bytes(text) - count_bytes("".join(left))


@pytest.mark.parametrize(
    ("spans", "left"),
    [
        ([], "a\n\nbc"),
        ([(0, 1)], "\nbc"),
        ([(1, 2)], "\nbc"),
        ([(1, 3)], "bc"),
        ([(1, 4)], ""),
        ([(2, 3), (3, 4)], "a\n"),
        ([(0, 1), (4, 5)], "\n"),
        ([(4, 5), (0, 1)], "\n"),
        ([(3, 3)], "a\n\n"),
        ([(5, 5)], "a\n\n"),  # behind the last character
    ],
)
def test_lines_of_spans_are_left_out(spans, left):
    assert without_lines("a\n\nbc", spans) == left


@given(st.text(alphabet="a\n\r\u2028"))
def test_lines_are_counted(text):
    assert count_lines(text) == len(lines_of(text))


SPACES = "".join(chr(code) for code in range(0x110000) if chr(code).isspace())


@given(st.lists(st.text(alphabet=SPACES + "ab𝄞é\u200b") | st.sampled_from(["word", " ", "\n"])))
def test_words_are_counted_with_line_ends(parts):
    text = "".join(parts)
    assert count_words(text) == len(text.split()) + text.count("\n")


@given(st.text())
def test_bytes_are_counted(text):
    assert count_bytes(text) == len(text.encode("utf-8"))
