import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from newllm_core.data.text_stream import (
    LONGEST_CHARACTER,
    MOST_BEFORE,
    count_line_ends,
    text_stream,
)
from tests.generation.cases import TOKENIZERS

from .layouts import ADOPTED

MADE = {name: make() for name, make in TOKENIZERS.items()}
ALL = MADE | ADOPTED
MULTI_BYTE = "añ€𝄞 日本\n\tthe cat, é 🇩🇪👩‍👩‍👧"


def ids_of(tokenizer):
    return st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=30)


def whole(text):
    """Without the beginnings of characters at its end."""
    return text.rstrip("\ufffd")


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=40)
@given(data=st.data())
def test_streaming_is_decoding_the_whole_for_any_ids(name, data):
    tokenizer = ALL[name]
    ids = data.draw(ids_of(tokenizer))
    stream, text = text_stream(tokenizer), ""
    for count, token in enumerate(ids, 1):
        text += stream.push(token)
        decoded = tokenizer.decode(ids[:count])
        assert decoded.startswith(text)
        assert len(decoded) - len(text) <= 2  # the bytes of one unfinished character
    assert whole(text) == whole(tokenizer.decode(ids))
    if tokenizer.is_byte_level:
        encoded = b"".join(map(tokenizer.bytes_of, ids))
        assert encoded.decode("utf-8", "replace") == tokenizer.decode(ids)


@pytest.mark.parametrize("name", ADOPTED)
@settings(max_examples=25)
@given(data=st.data())
def test_streaming_goes_on_behind_a_text(name, data):
    tokenizer = ADOPTED[name]
    tokens = [i for i in range(tokenizer.vocab_size) if tokenizer.spelling(i) is not None]
    tokens = [i for i in tokens if tokenizer.bytes_of(i) is None or tokenizer.is_byte_level]
    ids = data.draw(st.lists(st.sampled_from(tokens), min_size=2, max_size=30))
    given_ids = tokenizer.encode("the cat")
    followed = text_stream(tokenizer)
    followed.follow(given_ids)
    text = "".join(map(followed.push, ids))
    before = tokenizer.decode(given_ids)
    assert whole(before + text) == whole(tokenizer.decode([*given_ids, *ids]))


@pytest.mark.parametrize("name", [name for name in ADOPTED if name not in ("words-end", "speech")])
@pytest.mark.parametrize("word", ["café", "日本語", "New York", "Straße"])
def test_added_words_come_as_they_are(name, word):
    tokenizer = ADOPTED[name]
    [token] = tokenizer.encode(word)
    assert tokenizer.decode([token]) == text_stream(tokenizer).push(token) == word
    stream = text_stream(tokenizer)
    stream.follow(tokenizer.encode("the cat"))
    assert stream.push(token).strip() == word


def test_stray_bytes_spoil_no_character_beside_them():
    tokenizer = ADOPTED["unigram-bytes"]
    ids = tokenizer.encode("𝄞")[-4:]  # four bytes
    text = "".join(map(text_stream(tokenizer).push, [*ids, ids[1], *ids]))
    assert text == tokenizer.decode([*ids, ids[1], *ids]) == "𝄞\ufffd𝄞"


@pytest.mark.parametrize("name", ["bpe", "bytes", "byte-fallback"])
@pytest.mark.parametrize("given", ["", "a", "añ€"])
def test_characters_come_whole_and_at_once(name, given):
    tokenizer = MADE[name]
    ids = tokenizer.encode(MULTI_BYTE)
    given_ids = len(tokenizer.encode(given))
    stream = text_stream(tokenizer)
    stream.follow(ids[:given_ids])
    pieces = list(map(stream.push, ids[given_ids:]))
    assert not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == tokenizer.decode(ids)[len(tokenizer.decode(ids[:given_ids])) :]
    assert "".join(pieces).endswith(MULTI_BYTE[-9:])
    assert len([piece for piece in pieces if piece]) > 10


def test_white_space_between_words_depends_on_what_was_before():
    tokenizer = MADE["word-pieces"]
    ids = tokenizer.encode("the cats sat , on the mat .")
    stream = text_stream(tokenizer)
    stream.follow(ids[:2])
    assert list(map(stream.push, ids[2:])) == ["s", " sat", ",", " on", " the", " mat", "."]
    assert text_stream(tokenizer).push(ids[0]) == "the"


def test_control_tokens_are_no_text():
    for tokenizer in MADE.values():
        stream = text_stream(tokenizer)
        control = [tokenizer.end_id, *tokenizer.role_ids.values()]
        assert list(map(stream.push, control)) == ["", "", ""]


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_a_stream_goes_on_from_its_state(name, data):
    tokenizer = ALL[name]
    ids = data.draw(ids_of(tokenizer))
    cut = data.draw(st.integers(0, len(ids)))
    first = text_stream(tokenizer)
    text = "".join(map(first.push, ids[:cut]))
    second = text_stream(tokenizer, first.state())
    text += "".join(map(second.push, ids[cut:]))
    once = text_stream(tokenizer)
    assert text == "".join(map(once.push, ids))
    assert len(once.state()) <= MOST_BEFORE + LONGEST_CHARACTER + 1


@pytest.mark.parametrize("name", MADE)
def test_bytes_that_are_no_text_do_not_pile_up(name):
    tokenizer = MADE[name]
    lone = tokenizer.encode("é")[-1]  # a byte that continues a character, where there are bytes
    stream = text_stream(tokenizer)
    pieces = [stream.push(lone) for _ in range(100)]
    assert len("".join(pieces)) > 80
    assert len(stream.state()) < 16


@pytest.mark.parametrize("name", ["bpe", "bytes", "byte-fallback"])
def test_only_the_last_byte_that_begins_a_character_waits_for_others(name):
    tokenizer = MADE[name]
    *_, begin, end = tokenizer.encode("ñ")
    stream = text_stream(tokenizer)
    stream.follow(tokenizer.encode("the cat sat on the mat and"))
    pieces = [stream.push(begin) for _ in range(100)]
    assert pieces == ["", *["\ufffd"] * 99]
    state = stream.state()
    assert len(state) < 16
    assert text_stream(tokenizer, state).push(end) == "ñ"


@pytest.mark.parametrize(
    ("name", "state"),
    [("bpe", [65]), ("bpe", [300]), ("bpe", ["a"]), ("word-pieces", [3, 1]), ("bytes", [195, 195])],
)
def test_states_of_nothing_are_refused(name, state):
    with pytest.raises((ValueError, TypeError)):
        text_stream(MADE[name], state)


def test_line_ends_are_counted_in_tokens():
    text = "the cat\n\nsat\r\n on\n" * 50
    for name in ("bpe", "bytes"):
        tokens = np.array(MADE[name].encode(text), np.uint16)
        assert count_line_ends(MADE[name], tokens) == text.count("\n")
    assert count_line_ends(MADE["word-pieces"], np.array([1], np.uint16)) is None
