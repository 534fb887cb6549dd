"""Names to plugins: laziness, and what broken or clashing plugins do to others."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from newllm_core.errors import ConfigError, PluginError
from newllm_core.plugins.registry import CELLS, DATA_SOURCES, OBJECTIVES, REGULARIZERS

NAMES = [
    "covariance-ema",
    "distribution",
    "ema-variance",
    "fixed-dimensions",
    "none",
    "past-contexts",
]


def distribution(folder, name, entries, version="1.2"):
    """Metadata of an installed distribution that registers `entries` (name: target)."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{key} = {target}" for key, target in entries.items()]
    (info / "entry_points.txt").write_text("\n".join(["[newllm.regularizers]", *lines, ""]))


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder on the import path, as if distributions were installed there."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def run(code, site=None):
    """What `code` prints in a fresh interpreter."""
    prelude = "import sys, json\n" + (f"sys.path.insert(0, {str(site)!r})\n" if site else "")
    done = subprocess.run(
        [sys.executable, "-c", prelude + code], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


def test_built_in_names():
    plugins = REGULARIZERS.plugins()
    assert [name for name in plugins if plugins[name][0].distribution == "newllm"] == NAMES
    assert plugins["none"][0].target == "newllm_core.regularizers.none:NoRegularizer"


def test_listing_imports_no_plugin_and_no_torch(site):
    distribution(site, "newllm-loud", {"loud": "loud:Loud"})
    (site / "loud.py").write_text("raise SystemExit('imported')")
    names, heavy = run(
        "from newllm_core.plugins.registry import *\n"
        "names = list(REGULARIZERS.plugins()) + list(DATA_SOURCES.plugins())\n"
        "REGULARIZERS.find('loud')\n"
        "heavy = {'torch', 'numpy', 'datasets', 'tokenizers', 'loud'}\n"
        "plain = ('config', 'errors', 'files', 'settings', 'plugins')\n"
        "plain = ['newllm_core.' + part for part in plain]\n"
        "ours = [m for m in sys.modules if m.startswith('newllm_core.')]\n"
        "ours = [m for m in ours if not m.startswith(tuple(plain))]\n"
        "print(json.dumps([names, sorted(heavy & set(sys.modules)) + ours]))",
        site,
    )
    assert {"loud", *NAMES} <= set(names)
    assert heavy == []


def test_loading_one_imports_no_other():
    loaded = run(
        "from newllm_core.plugins.registry import REGULARIZERS\n"
        "REGULARIZERS.load('none')\n"
        "print(json.dumps([m for m in sys.modules if m.startswith('newllm_core.regularizers.')]))"
    )
    assert sorted(loaded) == ["newllm_core.regularizers.base", "newllm_core.regularizers.none"]


@pytest.mark.parametrize("name", NAMES)
def test_every_built_in_regularizer_loads(name):
    from newllm_core.regularizers.base import Regularizer

    assert issubclass(REGULARIZERS.load(name), Regularizer)


def test_unknown_name_lists_names_and_suggests_a_near_one():
    with pytest.raises(ConfigError) as caught:
        REGULARIZERS.load("ema-varience")
    message = str(caught.value)
    assert "unknown regularizer 'ema-varience'; did you mean 'ema-variance'?" in message
    assert all(name in message for name in NAMES)
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_unknown_name_far_from_all_is_not_guessed_at():
    with pytest.raises(ConfigError, match=r"unknown regularizer 'zzz' \(known: covariance-ema"):
        REGULARIZERS.find("zzz")


def test_a_group_without_plugins_says_what_may_be_wrong():
    with pytest.raises(ConfigError, match="is newllm installed"):
        replace(REGULARIZERS, kind="nothing").find("any")


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("import not_a_module_anywhere", "broken:Broken", "ModuleNotFoundError"),
        ("raise RuntimeError('two\\nlines')", "broken:Broken", "RuntimeError: two lines"),
        ("def f(:", "broken:Broken", "SyntaxError"),
        ("", "broken:Broken", "AttributeError"),
        ("", "absent_module:Broken", "ModuleNotFoundError"),
    ],
)
def test_a_broken_plugin_breaks_only_the_run_that_asks_for_it(site, source, target, reason):
    distribution(site, "newllm-broken", {"broken": target})
    (site / "broken.py").write_text(source)
    sys.modules.pop("broken", None)
    assert "broken" in REGULARIZERS.plugins()
    assert REGULARIZERS.load("none").__name__ == "NoRegularizer"
    with pytest.raises(PluginError) as caught:
        REGULARIZERS.load("broken")
    sys.modules.pop("broken", None)
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert f"regularizer 'broken' of newllm-broken 1.2 ({target})" in message
    assert reason in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("class Other: pass", "other_plugin:Other"),
        ("Other = 3", "other_plugin:Other"),
        ("def Other(context_dim, options): pass", "other_plugin:Other"),
    ],
)
def test_a_plugin_that_is_not_a_subclass(site, monkeypatch, source, target):
    monkeypatch.delitem(sys.modules, "other_plugin", raising=False)
    distribution(site, "newllm-other", {"other": target})
    (site / "other_plugin.py").write_text(source)
    with pytest.raises(PluginError) as caught:
        REGULARIZERS.load("other")
    monkeypatch.delitem(sys.modules, "other_plugin", raising=False)
    message = str(caught.value)
    assert f"newllm-other 1.2 ({target}) is not a subclass of" in message
    assert "newllm_core.regularizers.base:Regularizer" in message


def test_a_plugin_of_another_distribution_loads(site, monkeypatch):
    distribution(site, "newllm-good", {"good": "good_plugin:Good"})
    (site / "good_plugin.py").write_text(
        "from newllm_core.regularizers.none import NoRegularizer\nclass Good(NoRegularizer): pass\n"
    )
    loaded = REGULARIZERS.load("good")
    monkeypatch.delitem(sys.modules, "good_plugin")
    assert loaded.__name__ == "Good"
    assert REGULARIZERS.find("good").origin == "newllm-good 1.2 (good_plugin:Good)"


def test_two_distributions_that_claim_one_name_clash_only_when_asked(site):
    distribution(site, "newllm-a", {"twice": "a:A"})
    distribution(site, "newllm-b", {"twice": "b:B"}, version="3")
    assert len(REGULARIZERS.plugins()["twice"]) == 2
    assert REGULARIZERS.load("none").__name__ == "NoRegularizer"
    with pytest.raises(PluginError) as caught:
        REGULARIZERS.load("twice")
    assert "newllm-a 1.2 (a:A) and newllm-b 3 (b:B)" in str(caught.value)
    assert caught.value.exit_code == 4


def test_the_name_of_a_built_in_cannot_be_taken(site):
    distribution(site, "aaa-first", {"none": "thief:Thief"})
    (site / "thief.py").write_text("raise RuntimeError('imported')")
    claimants = [p.distribution for p in REGULARIZERS.plugins()["none"]]
    assert claimants == ["newllm", "aaa-first"]
    assert REGULARIZERS.load("none").__name__ == "NoRegularizer"


def test_one_distribution_found_twice_is_no_clash(site, tmp_path_factory, monkeypatch):
    again = tmp_path_factory.mktemp("again")
    monkeypatch.syspath_prepend(again)
    for folder in (Path(site), again):
        distribution(folder, "newllm-same", {"same": "same:Same"})
    assert REGULARIZERS.find("same").target == "same:Same"


def test_data_sources_have_their_own_names():
    assert {"python-docs", "text-file", "tokens"} <= set(DATA_SOURCES.plugins())
    with pytest.raises(ConfigError, match="unknown data source"):
        DATA_SOURCES.find("ema-variance")


def test_cells_and_objectives_have_their_own_names():
    cells, objectives = CELLS.plugins(), OBJECTIVES.plugins()
    assert {"gated", "gru", "mingru", "mogrifier", "residual"} <= set(cells)
    assert {"cvfp", "reconstruction"} <= set(objectives)
    assert not set(cells) & set(objectives)
    with pytest.raises(ConfigError, match=r"unknown cell 'gruu'; did you mean 'gru'\?"):
        CELLS.load("gruu")
