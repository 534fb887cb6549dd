import pytest

from newllm_core import native

from .conftest import run
from .inside import CommandLine

ROW = {"engine", "precision", "tokens_per_second", "ratio_to_naive", "share_of_peak"}
FAST = ("bench", "--preset", "cvfp-16", "--rounds", 1, "--threads", 1)


@pytest.fixture
def newllm(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


def test_report_has_every_row_and_ratios_follow_from_rates(newllm):
    done = newllm(*FAST, "--batch", 64, "--json")
    assert done.code == 0
    report = done.json
    assert set(report) == {"schema", "preset", "device", "peaks", "rows"}
    assert (report["schema"], report["preset"], report["device"]) == (1, "cvfp-16", "cpu")
    assert set(report["peaks"]) == {"float32", "bfloat16"}
    assert all(set(row) == ROW for row in report["rows"])
    rows = {(row["engine"], row["precision"]): row for row in report["rows"]}
    both = [(e, p) for e in ("online", "streams", "parallel") for p in ("float32", "bfloat16")]
    assert set(rows) == {("naive", "float32"), *both}
    naive = rows["naive", "float32"]
    assert naive["ratio_to_naive"] == 1
    weights = 2 * 32 * 32  # two layers of [C + E, C + E]
    for (_, precision), row in rows.items():
        rate = row["tokens_per_second"]
        assert row["ratio_to_naive"] == pytest.approx(rate / naive["tokens_per_second"])
        peak = report["peaks"][precision] * 1e9
        assert row["share_of_peak"] == pytest.approx(6 * weights * rate / peak)
    assert rows["parallel", "float32"]["ratio_to_naive"] > 2


def test_rows_are_selected(newllm):
    done = newllm(*FAST, "--engine", "streams", "--precision", "float32", "--json")
    assert [(r["engine"], r["precision"]) for r in done.json["rows"]] == [("streams", "float32")]
    assert list(done.json["peaks"]) == ["float32"]
    assert done.json["rows"][0]["ratio_to_naive"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--engine", "fast"), "--engine 'fast'"),
        (("--precision", "float8"), "--precision 'float8'"),
        (("--preset", "reconstruction", "--engine", "naive"), "default update only"),
    ],
)
def test_mistakes_are_one_line(newllm, options, said):
    done = newllm("bench", "--rounds", 1, *options)
    assert done.code == 2
    assert said in done.err
    assert done.err.strip().count("\n") == 0


def test_models_without_a_published_loop_have_the_other_rows(newllm):
    options = ("--engine", "parallel", "--precision", "float32", "--batch", 64, "--json")
    done = newllm("bench", "--preset", "reconstruction", "--rounds", 1, *options)
    assert done.json["rows"][0]["tokens_per_second"] > 0


@pytest.mark.parametrize("compiled", [True, False])
def test_a_table_says_when_loops_were_not_compiled(newllm, monkeypatch, compiled):
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    elif native.library() is None:
        pytest.skip("the loops in C were not compiled when newllm was installed")
    done = newllm(*FAST, "--engine", "parallel", "--precision", "float32")
    assert ("loops in C: not compiled" in done.out) == (not compiled)


def test_steps_put_off_by_a_row_are_made_before_the_process_ends(tmp_path):
    rows = ("--engine", "online", "--engine", "parallel")
    done = run(*FAST[:-1], 2, *rows, "--json", cwd=tmp_path)
    assert len(done.json["rows"]) == 4
    assert [line for line in done.err.splitlines() if not line.startswith("benchmark: ")] == []
