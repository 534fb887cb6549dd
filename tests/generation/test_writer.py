import pytest

from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError
from newllm_core.generation.writer import Tail, Writer, encode_prompt
from tests.data.layouts import LAYOUTS

from .cases import TOKENIZERS, make_model, session_of

TEXTS = {name: make() for name, make in TOKENIZERS.items()}
PROMPT = "the cat"


@pytest.fixture(params=TEXTS)
def tokenizer(request):
    return TEXTS[request.param]


def writer_of(tokenizer, model=None, *, stop=(), tail=None, prompt=PROMPT, **options):
    model = model or make_model(tokenizer.vocab_size)
    session = session_of(model, start_id=tokenizer.end_id, **options)
    writer = Writer(session, tokenizer, stop, tail)
    writer.read(tokenizer.encode(prompt))
    return writer


def test_text_is_that_of_its_tokens_behind_the_prompt(tokenizer):
    record = []
    writer = writer_of(tokenizer)
    pieces = list(writer.write(60, (), record))
    assert len(record) == writer.num_tokens == 60
    assert writer.finish_reason == "length"
    prompt = tokenizer.encode(PROMPT)
    text = tokenizer.decode([*prompt, *record])[len(tokenizer.decode(prompt)) :]
    assert text.startswith("".join(pieces))
    assert not text.removeprefix("".join(pieces)).strip("\ufffd")
    assert len(pieces) == 61


def test_a_stop_string_ends_the_text_before_it(tokenizer):
    text = "".join(writer_of(tokenizer).write(200, ()))
    stop = text[20:23]
    writer = writer_of(tokenizer, stop=["never this", stop])
    assert "".join(writer.write(200, ())) == text[: text.index(stop)]
    assert writer.finish_reason == "stop"
    assert writer.num_tokens < 200
    assert writer.finish() == ""


class Scripted:
    """A session that chooses given tokens."""

    pending = None

    def __init__(self, ids):
        self._ids = ids

    def choose(self, limit, ends):
        yield from self._ids[:limit]


@pytest.mark.parametrize("name", ["byte-level", "byte-level-whole-words", "unigram", "word-piece"])
@pytest.mark.parametrize("stop", ["café", "日本語", "New York"])
def test_an_added_word_stops_a_text(name, stop):
    tokenizer = TextTokenizer.adopt(LAYOUTS[name].to_str())
    ids = tokenizer.encode(f"the cat {stop} sat")
    writer = Writer(Scripted(ids), tokenizer, [stop])
    assert "".join(writer.write(99, ())) == "the cat "
    assert writer.finish_reason == "stop"
    spared = Writer(Scripted(ids), tokenizer, ["never"])
    assert "".join(spared.write(99, ())) == tokenizer.decode(ids) == f"the cat {stop} sat"


def test_an_end_ends_the_text(tokenizer):
    record = []
    list(writer_of(tokenizer).write(30, (), record))
    writer = writer_of(tokenizer)
    list(writer.write(30, {record[20]}))
    assert writer.num_tokens == record.index(record[20])
    assert writer.finish_reason == "end"


def test_what_may_be_a_stop_string_comes_at_the_end_or_stays_in_the_tail():
    tokenizer = TEXTS["bytes"]
    text = "".join(writer_of(tokenizer).write(50, ()))
    stop = text[-1] + "…"
    writer = writer_of(tokenizer, stop=[stop])
    assert "".join(writer.write(50, ())) == text[:-1]
    assert writer.tail.held == text[-1]
    assert writer.finish() == text[-1]
    found = writer_of(tokenizer, stop=["…"], tail=Tail(held="ab…c"))
    assert list(found.write(5, ())) == ["ab"]
    assert (found.finish_reason, found.num_tokens) == ("stop", 0)


def test_prompts_that_are_no_text_are_refused():
    with pytest.raises(InputError, match=r"udcc3.*not Unicode"):
        encode_prompt(TEXTS["bytes"], "a\udcc3")
    assert encode_prompt(TEXTS["bytes"], "") == []
