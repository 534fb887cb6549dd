import json
import resource
import sys

import pytest
from analysis import planted

from newllm_cli.commands.analyze import analyze
from newllm_cli.commands.compare import compare
from newllm_cli.output import console
from newllm_cli.progress import StderrProgress
from newllm_cli.render import render_dataset
from newllm_cli.reports import check_outputs
from newllm_core.analysis.report.charts import history_charts
from newllm_core.analysis.report.png import write_charts
from newllm_core.checkpoint.format import save
from newllm_core.errors import ConfigError, InputError


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "a.safetensors"
    save(planted.checkpoint_of(planted.healthy()), path, overwrite=False)
    return path


def options(**given):
    few = ["analysis.dynamics_steps=32", "analysis.memory_lags=4", "analysis.num_pairs=500"]
    common = {"config_file": None, "assignments": few, "tensor": None, "overwrite": False}
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
    assert len(list((tmp_path / "charts").glob("*.png"))) == 10


def test_a_report_is_not_overwritten_and_refused_before_the_work(tmp_path):
    page = tmp_path / "a.html"
    page.write_text("mine")
    with pytest.raises(InputError, match=r"a\.html exists: .*--overwrite"):
        analyze(**options(checkpoint=tmp_path / "none.safetensors", html=page))
    assert page.read_text() == "mine"
    check_outputs(page, None, overwrite=True)
    with pytest.raises(InputError, match=r"exists: choose another --png, or pass --overwrite"):
        check_outputs(None, tmp_path, overwrite=False)
    check_outputs(None, tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"a\.html is no folder: give another path"):
        check_outputs(None, page, overwrite=True)


def test_png_without_matplotlib_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="--png needs matplotlib"):
        analyze(**options(checkpoint=tmp_path / "none.safetensors", png=tmp_path / "charts"))


def test_places_that_cannot_be_written_are_noticed_before_the_work(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    missing = {"checkpoint": tmp_path / "none.safetensors"}
    too_long = f"{'y' * 250}.html"
    for html in (tmp_path / "folder.html", tmp_path / "file" / "a.html", tmp_path / too_long):
        with pytest.raises(InputError, match=r"folder|cannot write"):
            analyze(**options(**missing, html=html))
    for png in (tmp_path / "file", tmp_path / "file" / "charts"):
        with pytest.raises(InputError, match=r"exists|cannot write"):
            analyze(**options(**missing, png=png))
    assert {item.name for item in tmp_path.iterdir()} == {"file", "folder.html"}


def test_no_name_is_read_as_markup(checkpoint, capsys):
    path = checkpoint.rename(checkpoint.with_name("p[v=1] [bold] :smile:.safetensors"))
    analyze(**options(checkpoint=path, json=False))
    assert path.name in capsys.readouterr().out.replace("\n", "")
    StderrProgress().message("[/x] [bold]b[/bold]")
    assert capsys.readouterr().err == "[/x] [bold]b[/bold]\n"
    figures = {"documents": 1, "tokens": 2, "bytes": 3, "words": 4}
    render_dataset("d[/x]", {"splits": {"[b]": figures}, "vocab_size": 9}, console())
    shown = capsys.readouterr().out
    assert "dataset d[/x]" in shown
    assert "[b]" in shown


def test_of_a_full_disk_no_half_picture_is_left(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    charts = history_charts([{"sweep_terms": {"cvfp": loss}} for loss in (2.0, 1.0)])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*loss.png: .*free some space"):
            write_charts(charts, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
