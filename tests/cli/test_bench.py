import pytest

from newllm_core import benchmark as core

from .conftest import run

ROW = {"engine", "precision", "tokens_per_second", "ratio_to_naive", "share_of_peak"}
FAST = ("bench", "--preset", "cvfp-16", "--rounds", 1, "--threads", 1)


def test_report_has_every_row_and_ratios_follow_from_rates(newllm):
    done = newllm(*FAST, "--batch", 64, "--json")
    assert done.code == 0
    report = done.json
    assert set(report) == {"schema", "preset", "device", "kernels", "peaks", "rows"}
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


def test_a_config_given_alone_is_measured_and_named(newllm, monkeypatch, tmp_path):
    measured = []

    def benchmark(config, **given):
        measured.append(config)
        return {"device": "cpu", "kernels": [], "peaks": {}, "rows": []}

    monkeypatch.setattr(core, "benchmark", benchmark)
    (tmp_path / "mine.toml").write_text('[model]\ncontext_dim = 24\n[phase1]\nreg = "none"\n')
    for options in (("--config", "preset:tiny"), ("--preset", "tiny"), ("--config", "mine.toml")):
        name = newllm("bench", *options, "--json").json["preset"]
        assert name == options[1].removeprefix("preset:")
    by_config, by_preset, mine = measured
    assert by_config == by_preset
    assert by_preset.phase1.reg == "ema-variance"
    assert (mine.model.context_dim, mine.phase1.reg) == (24, "none")
    done = newllm("bench", "--preset", "tiny", "--config", "mine.toml")
    assert (done.code, "leave one out" in done.err) == (2, True)


def test_a_regularizer_of_every_layer_is_measured(newllm):
    done = newllm(*FAST, "--batch", 64, "--set=phase1.apply_to=every-layer", "--json")
    assert done.code == 0, done.err
    assert all(row["tokens_per_second"] > 0 for row in done.json["rows"])


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
        (("--engine", "naive", "--precision", "bfloat16"), "add --precision float32"),
        (("--cell", "gur"), "unknown cell 'gur'; did you mean 'gru'?"),
        (("--kernels", "on"), "run.kernels is 'on'"),
        (("--batch", "many"), "Invalid value for '--batch'"),
        (("--batch", "0"), "Invalid value for '--batch'"),
        (("--set", "phase1.start=carry"), "phase1.start: rows have --engine"),
        (("--set", "phase1.objective=reconstruction"), "phase1.objective: rows have --engine"),
        (("--set", "objective.decoder=mlp"), "objective.decoder: rows have --engine"),
        (("--set", "run.precision=bfloat16"), "run.precision: rows have --engine"),
    ],
)
def test_mistakes_are_one_line(newllm, options, said):
    done = newllm("bench", "--rounds", 1, *options)
    assert done.code == 2
    assert said in done.err
    assert done.err.strip().count("\n") == 0


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        (("--preset", "language-model"), 200 * 200 * 7),
        (("--preset", "cvfp-16", "--cell", "gru"), 2 * 16 * 16 * 6),
    ],
)
def test_every_cell_has_every_row(newllm, options, weights):
    done = newllm(
        *("bench", *options, "--rounds", 1, "--threads", 1, "--batch", 16, "--json"),
        *("--precision", "float32"),
    )
    report = done.json
    assert [row["engine"] for row in report["rows"]] == ["naive", "online", "streams", "parallel"]
    for row in report["rows"]:
        share = 6 * weights * row["tokens_per_second"] / (report["peaks"]["float32"] * 1e9)
        assert row["share_of_peak"] == pytest.approx(share)


ONE_ROW = (*FAST, "--batch", 16, "--engine", "parallel", "--precision", "float32")


@pytest.mark.parametrize("off", ["flag", "environment", None])
def test_a_table_says_which_forms_are_fast(newllm, monkeypatch, off):
    if off == "environment":
        monkeypatch.setenv("NEWLLM_RUN_KERNELS", "off")
    done = newllm(*ONE_ROW, *(("--kernels", "off") if off == "flag" else ()))
    setting = "off" if off in ("flag", "environment") else "auto"
    used = "fast cross-entropy" if off is None else "every form is plain"
    assert f"kernels {setting}: {used}" in done.out


def test_a_process_that_measures_says_nothing_else(tmp_path):
    done = run(*ONE_ROW, "--json", cwd=tmp_path)
    assert len(done.json["rows"]) == 1
    assert [line for line in done.err.splitlines() if not line.startswith("benchmark: ")] == []
