import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from newllm_core.data import pieces as pieces_module
from newllm_core.data.tokenizer import TextTokenizer
from tests.generation.cases import TOKENIZERS

from .layouts import numbered

# White space of every kind, because that is where tokenizers are delicate.
DELICATE = st.text(alphabet="the cat.,'s \n\r\t\x1c\x85\u2028é𝄞", max_size=80)


def lines_matter():
    """As newer models split: line ends go together with the white space before them."""
    tokenizer = Tokenizer.from_str(TOKENIZERS["bpe"]().to_json())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(r"\s*[\r\n]+|\s+(?!\S)|\s+|\w+|[^\w\s]+", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return TextTokenizer.adopt(tokenizer.to_str())


def always_prefixed():
    """Every text gets a space in front: no cut makes no difference."""
    vocabulary = numbered("?", "▁", *"thecat", "▁t")
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "t")], unk_token="?"))
    marks = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(marks)
    return TextTokenizer.adopt(tokenizer.to_str())


MADE = {name: make() for name, make in TOKENIZERS.items()}
MADE |= {"lines-matter": lines_matter(), "always-prefixed": always_prefixed()}


@pytest.mark.parametrize("name", MADE)
@settings(max_examples=60, deadline=None)
@given(text=DELICATE, size=st.integers(1, 20), chunk=st.integers(1, 30))
def test_pieces_together_have_the_ids_of_the_whole(name, text, size, chunk):
    tokenizer = MADE[name]
    chunks = [text[begin : begin + chunk] for begin in range(0, len(text), chunk)]
    found = list(tokenizer.pieces(chunks, size))
    assert "".join(found) == text
    assert [i for piece in found for i in tokenizer.encode(piece)] == tokenizer.encode(text)


@pytest.mark.parametrize("name", ["bpe", "word-pieces", "byte-fallback", "lines-matter"])
@pytest.mark.parametrize("characters", [100, 1000])
def test_pieces_have_about_the_size_asked_for(name, characters):
    text = "the cat sat\non the mat. " * 400
    found = list(MADE[name].pieces([text[:5000], text[5000:]], characters))
    assert all(characters <= len(piece) < characters + 40 for piece in found[:-1])
    assert len(found) >= len(text) // (characters + 40)


def test_what_cannot_be_cut_stays_whole_and_is_not_tried_for_ever(monkeypatch):
    tries = []
    harmless = pieces_module.HarmlessCuts._is_harmless
    monkeypatch.setattr(
        pieces_module.HarmlessCuts,
        "_is_harmless",
        lambda self, place: tries.append(place) or harmless(self, place),
    )
    text = "the cat " * 3000
    chunks = [text[begin : begin + 1000] for begin in range(0, len(text), 1000)]
    assert list(MADE["always-prefixed"].pieces(chunks, 100)) == [text]
    assert len(tries) <= pieces_module.TRIES * (len(chunks) + 1)
    assert len(set(tries)) == len(tries)


def test_no_text_has_no_pieces():
    assert list(MADE["bpe"].pieces([])) == []
    assert list(MADE["bpe"].pieces(["", ""])) == []


def test_batches_are_bounded():
    found = list(pieces_module.in_batches("abcdefg", lambda part: 1, 3))
    assert found == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
    assert list(pieces_module.in_batches("ab", lambda part: 5, 3)) == [["a"], ["b"]]
