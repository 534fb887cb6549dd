import pytest
from hypothesis import given
from hypothesis import strategies as st

from newllm_core.generation.stop import StopStrings

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


@pytest.mark.parametrize("strings", [[], ["xyz"]])
def test_nothing_is_held_back_without_reason(strings):
    stop = StopStrings(strings)
    assert stop.push("text") == "text"
    assert stop.flush() == ""
