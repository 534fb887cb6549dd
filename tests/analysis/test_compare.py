import io
import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from newllm_cli.render_compare import render_compare
from newllm_core.analysis.compare import (
    compare,
    differences,
    flat_settings,
    plugin_versions,
    short_names,
)
from newllm_core.analysis.report import png
from newllm_core.analysis.report.chart import draw, legend
from newllm_core.analysis.report.compare_page import compare_page, comparison_curves
from newllm_core.checkpoint.format import save
from newllm_core.config import Config, ModelConfig, Phase1Config, Phase2Config, RunConfig
from newllm_core.errors import ConfigError, InputError

from . import planted


def saved(folder, name, model, **changes):
    checkpoint = planted.checkpoint_of(model)
    for key, value in changes.items():
        setattr(checkpoint, key, value)
    path = folder / f"{name}.safetensors"
    save(checkpoint, path, overwrite=False)
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    figures = {
        "loss": 2.0,
        "perplexity": 7.4,
        "accuracy": 0.5,
        "bits_per_byte": 1.5,
        "word_perplexity": None,
    }
    return compare(
        [
            saved(folder, "good", planted.healthy()),
            saved(folder, "flat", planted.collapsed_to_rank(3)),
            saved(
                folder,
                "heads",
                planted.healthy(),
                phase="phase2",
                results={"train": figures, "validation": figures | {"loss": 2.5}},
            ),
        ]
    )


def printed(comparison):
    stream = io.StringIO()
    render_compare(comparison, Console(file=stream, width=80))
    return stream.getvalue().splitlines()


def test_health_and_figures_stand_side_by_side(comparison):
    lines = printed(comparison)
    row = {line.split("  ")[0]: line.split()[-3:] for line in lines}
    assert row["information content"] == ["healthy", "degenerate", "healthy"]
    assert row["ER/D"][0] == row["ER/D"][2] != row["ER/D"][1]
    assert row["bits per byte"] == ["–", "–", "1.5"]
    assert row["loss, nats per token"] == ["–", "–", "2.5"]


def test_a_section_that_was_not_judged_is_not_said_to_explode(comparison):
    good, flat, _ = comparison["checkpoints"]
    judged = [verdict for verdict in flat["verdicts"] if verdict["section"] != "training"]
    found = comparison | {"checkpoints": [good, flat | {"verdicts": judged}]}
    row = next(line for line in printed(found) if line.startswith("training"))
    assert row.split() == ["training", "healthy", "–"]
    assert "explodes" not in compare_page(found)


def test_it_fits_json_and_80_columns(comparison):
    assert json.loads(json.dumps(comparison, allow_nan=False)) == comparison
    assert max(len(line) for line in printed(comparison)) <= 80
    assert [entry["name"] for entry in comparison["checkpoints"]] == ["good", "flat", "heads"]
    assert comparison["checkpoints"][0]["language_model"] is None


def test_curves_differ_without_colours(comparison):
    first = comparison["checkpoints"][0]
    entries = [first | {"name": f"run {n}"} for n in range(8)]
    (chart,) = [c for c in comparison_curves({"checkpoints": entries}) if c.key == "spectrum"]
    keys = dict(re.findall(r'"curve (\w+)"(?: stroke-dasharray="([\d ]+)")?/', legend(chart)))
    assert (len(keys), len({*keys.values()})) == (9, 9)
    assert (keys["a"], keys["reference"]) == ("", "5 3")
    assert all(f'stroke-dasharray="{dash}"' in draw(chart) for dash in keys.values() if dash)
    figure = pytest.importorskip("matplotlib.figure").Figure()
    png._draw(chart, figure.subplots())
    figure.savefig(file := io.StringIO(), format="svg")
    assert len({*re.findall(r"stroke-dasharray: [^;]+", file.getvalue())}) == 8


def test_more_than_fit_get_tables_of_their_own(comparison):
    many = comparison | {"checkpoints": comparison["checkpoints"] * 4}
    lines = printed(many | {"config_differences": {"phase1.reg": ["a"] * 12}})
    assert max(len(line) for line in lines) <= 80
    assert "…" not in "".join(lines)
    assert sum(line.startswith("health,") for line in lines) == 3
    assert any(line.split()[-2:] == ["K", "L"] for line in lines)


def test_a_recurrence_that_explodes_is_a_column_without_figures(tmp_path):
    broken = planted.healthy()
    with torch.no_grad():
        planted.last_norm(broken).bias.fill_(3e38)
        broken.cells()[0].network.hidden[0].weight.mul_(1e5)
    paths = [saved(tmp_path, "a", planted.healthy()), saved(tmp_path, "b", broken)]
    entries = compare(paths)["checkpoints"]
    assert entries[0]["error"] is None
    assert "not finite" in entries[1]["error"]
    assert entries[1]["validation"] is None
    lines = printed(compare(paths))
    assert next(line for line in lines if line.startswith("dynamics")).split() == [
        "dynamics",
        "healthy",
        "explodes",
    ]


def test_a_missing_checkpoint_is_named_before_any_is_read(tmp_path, monkeypatch):
    good = saved(tmp_path, "good", planted.healthy())
    monkeypatch.setattr("newllm_core.analysis.compare.analyze", None)
    with pytest.raises(InputError, match=r"no such checkpoint.*none"):
        compare([good, tmp_path / "none.safetensors"])
    with pytest.raises(ConfigError, match="leave out --tokens"):
        compare([good], tokens=[tmp_path / "ids.npy"])


def test_settings_that_differ():
    base = Config()
    other = Config(
        model=ModelConfig(init_std=0.05),
        phase1=Phase1Config(reg="distribution"),
        phase2=Phase2Config(epochs=9),
        run=RunConfig(threads=2),
    )
    first = flat_settings("phase1", base)
    assert differences([first, flat_settings("phase1", other)]) == {
        "model.init_std": [0.1, 0.05],
        "phase1.reg": ["covariance-ema", "distribution"],
    }
    later = differences([first, *(flat_settings("phase2", config) for config in (base, other))])
    assert later["phase2.epochs"] == [None, 3, 9]
    assert differences([first]) == {}


def test_options_that_only_some_plugins_have():
    base = Config(regularizer={"momentum": 0.9, "form": None})
    other = Config(regularizer={"momentum": 0.9, "margin": 2.0}, source={"columns": "a"})
    found = differences([flat_settings("phase1", config) for config in (base, other)])
    assert found == {
        "regularizer.form": ["none", None],
        "regularizer.margin": [None, 2.0],
        "source.columns": [None, "a"],
    }


def test_plugins_that_differ(comparison):
    def made_with(**regularizer):
        own = {"kind": "data source", "distribution": "newllm", "version": "1"}
        return {"plugins": [{"kind": "regularizer", **regularizer}, own]}

    old, new = (made_with(distribution="newllm-x", version=v) for v in ("1.2", "1.3"))
    found = differences([*map(plugin_versions, (old, new, {})), None])
    assert found["regularizer version"] == ["1.2", "1.3", None, None]
    assert found["data source version"] == ["1", "1", None, None]
    own = plugin_versions(made_with(distribution="newllm", version="1"))
    assert differences([own, None]) == {}
    found = {key: values[:3] for key, values in found.items()}
    lines = printed(comparison | {"plugin_differences": found})
    row = next(line for line in lines if line.startswith("regularizer version"))
    assert row.split()[-3:] == ["1.2", "1.3", "–"]
    assert "plugins that differ" not in "".join(printed(comparison))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["runs/a.safetensors", "runs/b.safetensors"], ["a", "b"]),
        (["x/a.safetensors", "y/a.safetensors"], ["x/a", "y/a"]),
        (["a.safetensors", "a.safetensors"], ["a", "a"]),
        (["runs/v1.2.safetensors"], ["v1.2"]),
        (["m/mamba-1.4b", "m/mamba-1.3b"], ["mamba-1.4b", "mamba-1.3b"]),
        (["runs/gru.safetensors", "runs/gru"], ["runs/gru.safetensors", "runs/gru"]),
    ],
)
def test_names_are_as_short_as_they_can_be(paths, names):
    assert short_names([Path(path) for path in paths]) == names
