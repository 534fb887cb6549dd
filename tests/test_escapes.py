import pytest

from newllm_core.errors import ConfigError
from newllm_core.files.escapes import unescape


@pytest.mark.parametrize(
    ("written", "meant"),
    [(r"\n\n", "\n\n"), ("\n", "\n"), (r"\t|\r", "\t|\r"), (r"\\n", r"\n"), ("##", "##")],
)
def test_escapes(written, meant):
    assert unescape(written, "where") == meant


@pytest.mark.parametrize("text", ["", r"\d", "a\\", r"\\\x"])
def test_other_escapes_are_refused(text):
    with pytest.raises(ConfigError, match=r"generation\.stop"):
        unescape(text, "generation.stop")
