import json
import sys

import pytest
from analysis import planted

from newllm_cli.commands.analyze import analyze
from newllm_cli.commands.compare import compare
from newllm_cli.reports import check_outputs
from newllm_core.checkpoint.format import save
from newllm_core.errors import ConfigError, InputError


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "a.safetensors"
    save(planted.checkpoint_of(planted.healthy()), path, overwrite=False)
    return path


def options(**given):
    common = {"config_file": None, "assignments": [], "tensor": None, "overwrite": False}
    return common | {"html": None, "png": None, "json": True} | given


def test_analyze_writes_the_page_beside_its_result(checkpoint, tmp_path, capsys):
    page = tmp_path / "made" / "a.html"
    analyze(**options(checkpoint=checkpoint, html=page))
    assert "<h2>Verdicts</h2>" in page.read_text()
    captured = capsys.readouterr()
    assert json.loads(captured.out)["train"]["token_memory"]["total"] > 1
    assert f"wrote {page}" in captured.err.replace("\n", "")


def test_compare_writes_page_and_charts(checkpoint, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    given = options(checkpoints=[checkpoint], html=tmp_path / "c.html", png=tmp_path / "charts")
    del given["tensor"]
    compare(**given)
    assert json.loads(capsys.readouterr().out)["config_differences"] == {}
    assert (tmp_path / "c.html").is_file()
    assert len(list((tmp_path / "charts").glob("*.png"))) == 7


def test_a_report_is_not_overwritten_and_refused_before_the_work(tmp_path):
    page = tmp_path / "a.html"
    page.write_text("mine")
    with pytest.raises(InputError, match=r"a\.html exists: .*--overwrite"):
        analyze(**options(checkpoint=tmp_path / "none.safetensors", html=page))
    assert page.read_text() == "mine"
    check_outputs(page, None, overwrite=True)


def test_png_without_matplotlib_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="--png needs matplotlib"):
        analyze(**options(checkpoint=tmp_path / "none.safetensors", png=tmp_path / "charts"))
