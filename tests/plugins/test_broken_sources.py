"""What a broken data source does to `prepare`: one line that names it."""

import pytest

SOURCE_BASE = "from newllm_core.data.sources.base import DataSource, Document\n"
BROKEN_SOURCES = {
    "raises": (
        "        raise KeyError('row')\n        yield",
        "failed: KeyError: 'row' (broken_source.py:4; NEWLLM",
    ),
    "exits": ("        raise SystemExit(3)\n        yield", "failed: SystemExit: 3"),
    "nothing to iterate": ("        return None", "documents() returned None: yield documents"),
    "no document": ("        yield 'text'", "it yielded str, expected Document"),
    "bytes": ("        yield Document(text=b'x')", "a text that is bytes, expected str"),
    "message": ("        yield Document(messages=(('user', 'x'),))", "expected Message(str, str)"),
    "negative token": ("        yield Document(tokens=(1, -1))", "the token -1, expected an int"),
    "token": ("        yield Document(tokens=(1.5,))", "the token 1.5, expected an int of 32 bits"),
    "empty": (
        "        yield Document()",
        "it yielded a document with nothing: give one of text, messages, tokens",
    ),
    "two": (
        "        yield Document(text='x', tokens=(1,))",
        "it yielded a document with text and tokens: give",
    ),
}


@pytest.mark.parametrize("case", BROKEN_SOURCES)
def test_a_broken_data_source(case, site, newllm, tmp_path):
    body, reason = BROKEN_SOURCES[case]
    source = f"{SOURCE_BASE}class Broken(DataSource):\n    def documents(self):\n{body}\n"
    target = {"broken": "broken_source:Broken"}
    site.install("newllm-broken", target, kind="data source", broken_source=source)
    done = newllm("prepare", "--source", "broken", "--out", tmp_path / "data")
    done.one_line("newllm-broken 1.2 (broken_source:Broken)", reason)
    assert done.code == 4
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("body", ["open('absent.txt')", "next(open('absent.txt'))"])
def test_a_data_source_that_finds_no_file_says_which_and_where(newllm, tmp_path, body):
    path = tmp_path / "mine.py"
    path.write_text(
        f"{SOURCE_BASE}class Mine(DataSource):\n    def documents(self):\n        {body}"
    )
    done = newllm("prepare", "--plugin", path, "--source", "mine", "--out", tmp_path / "data")
    done.one_line("source mine: FileNotFoundError", "'absent.txt' (mine.py:4; NEWLLM_DEBUG=1")
    assert done.code == 3
