"""What is read without the extra `datasets`, and what is said of the rest."""

import json
import sys

import pytest

from newllm_core.data.sources.opening import require_extra
from newllm_core.data.sources.rows import Rows
from newllm_core.data.sources.ultrachat import UltraChat
from newllm_core.data.sources.wikitext import WikiText
from newllm_core.errors import ConfigError

from .cases import assert_one_line_error, run, write
from .containers import write_rows

ROWS = [{"text": f"row {number} says {number * number}"} for number in range(60)]


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    """Modules that come with the extra cannot be imported."""
    known = [name for name in sys.modules if name.partition(".")[0] in ("datasets", "pyarrow")]
    for name in {"datasets", "pyarrow", "pyarrow.ipc", "pyarrow.parquet", "pandas", *known}:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.jsonl.gz", "folder"])
def test_local_rows_need_nothing(tmp_path, name):
    path = tmp_path / name
    write_rows(path / "a.jsonl" if name == "folder" else path, ROWS)
    info = run(tmp_path / "out", source="rows", input=path, keep=True)
    assert info.train.documents + info.validation.documents == len(ROWS)


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.zst", "saved"])
def test_a_missing_extra_is_one_helpful_line(tmp_path, name):
    path = tmp_path / name
    given = path
    if name == "saved":
        files = {"_data_files": [{"filename": "data.arrow"}]}
        write(path / "state.json", json.dumps(files))
        path = path / "data.arrow"
    path.write_bytes(b"x")
    with assert_one_line_error(
        ConfigError, path.suffix, "pyarrow", "pip install 'newllm[datasets]'"
    ):
        list(Rows(str(given)).documents())


@pytest.mark.parametrize("fails", ["import absent", "raise ImportError('libarrow.so')"])
def test_a_package_that_fails_is_not_called_missing(tmp_path, monkeypatch, fails):
    write(tmp_path / "pyarrow" / "__init__.py", fails)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pyarrow")
    with pytest.raises(ImportError, match=r"absent|libarrow"):
        require_extra("pyarrow", ".parquet")


@pytest.mark.parametrize("source", [UltraChat(), WikiText(), Rows("hub:nobody/nothing")])
def test_the_hub_needs_datasets(source):
    with assert_one_line_error(ConfigError, "datasets", "pip install 'newllm[datasets]'"):
        list(source.documents())
