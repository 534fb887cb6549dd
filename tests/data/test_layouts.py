
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from newllm_core.data.text_stream import text_stream
from newllm_core.data.tokenizer import TextTokenizer

from .layouts import LAYOUTS, SPECIAL

MADE = {name: TextTokenizer.adopt(made.to_str(), {"user"}) for name, made in LAYOUTS.items()}
LITERALS = [
    *SPECIAL,
    "<unk>",
    "[SEP]",
    "[UNK]",
    "<|endoftext|>",
    "<|user|>",
    "＜/s＞",
    "<0x41>",
    "<0xE9>",
]
TEXTS = st.lists(
    st.sampled_from(
        [
            *LITERALS,
            " ",
            "\n",
            "the",
            "cat",
            "café",
            "é",
            "日本語",
            "<tab>",
            "Straße",
            "\ufdd0",
            "\ufdd0\ufdd0",
            "𝄞",
            "ſ",
        ]
    )
    | st.text(max_size=3),
    max_size=8,
).map("".join)


def whole(text):
    return text.rstrip("\ufffd")


def silent(t):
    return {i for i in range(t.vocab_size) if t.spelling(i) is None} - {t.unknown_id}


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_safe(name, text):
    t = MADE[name]
    if name == "speech":
        return
    ids = t.encode(text)
    assert not set(ids) & silent(t)
    plain = Tokenizer.from_str(t.to_json())
    assert plain.encode(text, add_special_tokens=False).ids == ids


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_stream(name, data):
    t = MADE[name]
    ids = data.draw(st.lists(st.integers(0, t.vocab_size - 1), max_size=20))
    stream = text_stream(t)
    pieces = []
    for n, i in enumerate(ids, 1):
        pieces.append(stream.push(i))
        assert t.decode(ids[:n]).startswith("".join(pieces))
    assert whole("".join(pieces)) == whole(t.decode(ids)), pieces


PLAIN = st.lists(
    st.sampled_from(
        [
            " ",
            "  ",
            "\n",
            "the",
            "cat",
            "sat",
            "café",
            "ça",
            "日本語",
            "日",
            "<tab>",
            "Straße",
            "New York",
            ".",
            ",",
            "𝄞",
            "ſ",
            "'s",
        ]
    ),
    max_size=8,
).map("".join)


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=300, deadline=None)
@given(text=PLAIN)
def test_same(name, text):
    t, o = MADE[name], LAYOUTS[name]
    ids = t.encode(text)
    assert ids == o.encode(text, add_special_tokens=False).ids
    if "byte-level" in name:
        if "<tab>" not in text:
            assert t.decode(ids) == text
    else:
        assert t.decode(ids) == o.decode([i for i in ids if i != t.unknown_id])


def test_show():
    for name, t in MADE.items():
        x = "the <pad> <s></s> <mask> ＜/s＞ <unk> [UNK] <0x41> café é日本語"
        ids = t.encode(x) if name != "speech" else []
        print(name, repr(t.decode(ids)), ids.count(t.unknown_id))
    assert 0
