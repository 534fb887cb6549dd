import sys

import pytest

from newllm_core.data.sources import python_docs
from newllm_core.data.sources.python_docs import PythonDocs, module_text
from newllm_core.errors import ConfigError

from .cases import assert_one_line_error, write

SOURCE = '''"""About the module."""
raise SystemExit("never imported")

class A:
    """About A.

    Indented.
    """

    def method(self):
        """About the method."""

        def inner():
            "About inner."

    async def other(self):
        pass

if True:
    def late():
        """About \\ud800 late."""
'''
DOC = '"""Doc."""'
EXPECTED = """pkg.mod

About the module.

pkg.mod.A

About A.

Indented.

pkg.mod.A.method

About the method.

pkg.mod.A.method.inner

About inner.

pkg.mod.late

About ? late.
"""


@pytest.fixture
def library(tmp_path, monkeypatch):
    monkeypatch.setattr(python_docs.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    return tmp_path


def test_docstrings_under_their_full_names(tmp_path):
    write(tmp_path / "mod.py", SOURCE)
    assert module_text("pkg.mod", tmp_path / "mod.py") == EXPECTED


def test_modules_by_name_without_tests_and_foreign_packages(library):
    for name in ("b.py", "a/__init__.py", "a/z.py", "test.py", "a0.py"):
        write(library / name, DOC)
    for folder in ("site-packages", "test", "json/tests", "idlelib", "lib2to3"):
        write(library / folder / "x.py", DOC)
    heads = [document.text.split("\n")[0] for document in PythonDocs().documents()]
    assert heads == ["a", "a.z", "a0", "b", "test"]


def test_files_that_do_not_parse_are_left_out(library):
    write(library / "good.py", DOC)
    write(library / "latin.py", b'# coding: latin-1\n"""caf\xe9"""')
    write(library / "syntax.py", '"""Doc."""\ndef')
    write(library / "null.py", b'"""Doc."""\0')
    write(library / "bytes.py", b'"""\xff"""')
    write(library / "silent.py", "x = 1")
    texts = [document.text for document in PythonDocs().documents()]
    assert texts == ["good\n\nDoc.\n", "latin\n\ncafé\n"]


def test_the_running_python_has_about_two_megabytes_of_english():
    imported = set(sys.modules)
    documents = list(PythonDocs().documents())
    new = {name for name in set(sys.modules) - imported if not name.startswith("encodings")}
    assert new <= {"pydoc_data", "pydoc_data.topics"}
    texts = [document.text for document in documents]
    assert 1_500_000 < sum(map(len, texts)) < 6_000_000
    assert len(set(texts)) > 400
    assert any(text.startswith("argparse\n\nCommand-line parsing library") for text in texts)


def test_it_takes_no_input():
    with assert_one_line_error(ConfigError, "python-docs", "book.txt"):
        list(PythonDocs("book.txt").documents())
