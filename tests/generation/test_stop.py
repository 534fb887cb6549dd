import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from newllm_core.errors import ConfigError
from newllm_core.generation.writer import StopStrings
from newllm_core.settings import Settings, from_assignments

LETTERS = st.text(alphabet="ab", max_size=12)


def run(pieces, strings):
    """Text that came out, and what ended it."""
    stop = StopStrings(strings)
    out = []
    for piece in pieces:
        out.append(stop.push(piece))
        if stop.found:
            return "".join(out), stop.found
    return "".join(out) + stop.flush(), None


def expected(text, strings):
    """Letter by letter."""
    for end in range(len(text) + 1):
        ending = [stop for stop in strings if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], max(ending, key=len)
    return text, None


@example(pieces=["aa", "b"], strings=["aab"])  # what is held is the longest beginning
@given(
    pieces=st.lists(LETTERS, max_size=8),
    strings=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
)
def test_it_makes_no_difference_how_the_text_comes(pieces, strings):
    assert run(pieces, strings) == expected("".join(pieces), strings)


def test_only_what_may_become_a_stop_string_is_held():
    stop = StopStrings(["\n\n", "END"])
    assert stop.push("a\n") == "a"
    assert stop.held == "\n"
    assert stop.push("b EN") == "\nb "
    assert stop.push("T") == "ENT"
    assert StopStrings(["ab"], held="a").push("b") == ""


def test_what_was_held_is_text_when_nothing_follows():
    stop = StopStrings(["ab"])
    assert (stop.push("a"), stop.flush(), stop.flush()) == ("", "a", "")


@pytest.mark.parametrize(
    ("typed", "strings"),
    [
        ('["x"]', ["x"]),
        (r'["x, y", "]", "\\n"]', ["x, y", "]", "\n"]),
        ("x", ["x"]),
        ("x,(y", ["x", "(y"]),
        ("[]", []),
    ],
)
def test_a_list_of_stop_strings_may_be_typed(monkeypatch, typed, strings):
    given = Settings(None, from_assignments([f"generation.stop={typed}"]))
    assert given.resolve().generation.stop_strings() == strings
    monkeypatch.setenv("NEWLLM_GENERATION_STOP", typed)
    assert Settings(None).resolve().generation.stop_strings() == strings


@pytest.mark.parametrize("typed", ["[x]", "['x']", '["x"', "[1]"])
def test_a_list_that_is_none_is_refused(typed):
    with pytest.raises(ConfigError, match=r"^generation\.stop is ") as caught:
        Settings(None, from_assignments([f"generation.stop={typed}"])).resolve()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strings", [[], ["xyz"]])
def test_nothing_is_held_back_without_reason(strings):
    stop = StopStrings(strings)
    assert stop.push("text") == "text"
    assert stop.flush() == ""
