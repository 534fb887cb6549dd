"""Who gets a name: built-ins, files, distributions, and the allow-list."""

import re

import pytest

from newllm_core.errors import ConfigError, InputError, PluginError
from newllm_core.plugins.files import kebab_case, use_file
from newllm_core.plugins.listing import list_plugins
from newllm_core.plugins.registry import DATA_SOURCES, REGULARIZERS

FILE = """
from dataclasses import dataclass
from newllm_core.config import option
from newllm_core.data.sources.text_file import TextFile, TextFileOptions
from newllm_core.regularizers import base
from newllm_core.regularizers.covariance_ema import CovarianceEma

@dataclass(frozen=True)
class OtherOptions(TextFileOptions):
    more: int = 1

@dataclass(frozen=True)
class SpreadOutOptions:
    margin: float = option(1.0, "Deviation.", low=0)

class SpreadOut(base.Regularizer):
    '''Asks for a deviation.

    More.
    '''
    Options = SpreadOutOptions
    def loss(self, contexts_ND, *, tokens_N):
        return (self.options.margin - contexts_ND.var(0, correction=0)).square().mean()

class Child(SpreadOut): ...
class Other(CovarianceEma): pass
class _Hidden(SpreadOut): pass
class Unrelated: pass
class Lines(TextFile): pass
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "spread.py"
    path.write_text(FILE)
    return path


def entries(name):
    return [entry for entry in list_plugins() if entry.name == name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SpreadOut", "spread-out"), ("SIGReg", "sig-reg"), ("L2Norm", "l2-norm"), ("X", "x")],
)
def test_kebab_case(name, expected):
    assert kebab_case(name) == expected


def test_the_plugins_of_a_file_are_found(file):
    file.write_text(FILE + "Alias = Child\n")
    found = {given.name: given.kind for given in use_file(file)}
    assert found == {
        "spread-out": "regularizer",
        "child": "regularizer",
        "other": "regularizer",
        "lines": "data source",
    }
    (entry,) = entries("spread-out")
    assert (entry.description, entry.line) == ("Asks for a deviation.", 16)
    assert (entry.file, entry.distribution, entry.version[:7]) == (str(file), "file", "sha256:")


def test_a_file_that_was_edited_is_what_its_version_says(file):
    versions = set()
    for weight in ("0.3", "0.4"):  # of one length and second, as bytecode tells contents apart
        file.write_text(f"{FILE}class Child(SpreadOut): default_weight = {weight}\n")
        versions |= {given.version for given in use_file(file)}
        assert REGULARIZERS.load("child").default_weight == float(weight)
    file.write_text(f"{FILE}class Added(SpreadOut): ...\n")
    use_file(file)
    assert REGULARIZERS.load("added").default_weight == 0.2
    assert len(versions) == 2
    file.write_text("broken(")
    with pytest.raises(PluginError, match="SyntaxError"):
        use_file(file)
    assert not entries("added")


def test_a_file_trains_and_its_options_are_set_and_saved(file, phase1, tmp_path):
    from newllm_core.checkpoint.format import load

    done = phase1(
        *("--plugin", file, "--reg", "spread-out", "--set", "regularizer.margin=0.5", "--json")
    )
    assert done.code == 0
    checkpoint = load(tmp_path / "phase1.safetensors")
    assert checkpoint.config.regularizer == {"margin": 0.5}
    cell, objective, record, source = checkpoint.provenance["plugins"]
    assert [(p["kind"], p["name"]) for p in (cell, objective)] == [
        ("cell", "residual"),
        ("objective", "reconstruction"),
    ]
    assert record["target"] == f"{file}:SpreadOut"
    assert (record["distribution"], record["version"][:7]) == ("file", "sha256:")
    assert (source["name"], source["distribution"]) == ("text-file", "newllm")
    assert source["options"] == {"document_separator": r"\n\n", "encoding": "utf-8"}


def test_options_of_a_file_are_checked(file, phase1):
    done = phase1("--plugin", file, "--reg", "spread-out", "--set", "regularizer.margin=-1")
    assert done.code == 2
    done.one_line("regularizer.margin is -1.0: at least 0")
    done = phase1("--plugin", file, "--reg", "spread-out", "--set", "regularizer.margn=1")
    assert done.code == 2
    done.one_line("did you mean 'margin'?")


def test_a_class_or_a_name_of_another_kind_is_told(file, phase1, newllm):
    done = phase1("--plugin", file, "--reg", "SpreadOut")
    done.one_line("unknown regularizer 'SpreadOut'; did you mean 'spread-out'?")
    for name in ("spread-out", "SpreadOut"):
        done = phase1("--plugin", file, "--cell", name)
        done.one_line(f"unknown cell {name!r}", "regularizer (newllm phase1 --reg spread-out)")
        assert done.code == 2
    assert "did you mean 'spread-out'?" in newllm("plugins", "show", "SpreadOut").err
    phase1("--cell", "odd").one_line("give --plugin FILE.py or install")


def test_a_data_source_in_a_file_is_read(file, newllm, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("".join(f"line {n} of some text\n" for n in range(50)))
    done = newllm(
        *("prepare", "--plugin", file, "--source", "lines", "--input", text),
        *("--document-separator", r"\n", "--vocab-size", "300", "--out", tmp_path / "data"),
        "--json",
    )
    assert done.code == 0
    assert (done.json["source"]["name"], done.json["source"]["distribution"]) == ("lines", "file")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("def f(:", r"cannot be imported: SyntaxError: .*\(bad.py, line 1\)"),
        ("x = 1\0", "cannot be imported: .*null bytes"),
        ("class A: pass", r"has no plugin: .* extends one of Cell, Objective, Regularizer, Data"),
        ("x = 1\nfrom absent import Mine", r"cannot be imported: .*'absent' \(bad.py:2;"),
        ("raise SystemExit(3)", r"cannot be imported: SystemExit: 3 \(bad.py:1;"),
    ],
)
def test_a_file_that_holds_none(content, words, newllm, tmp_path):
    (tmp_path / "bad.py").write_text(content)
    done = newllm("plugins", "--plugin", tmp_path / "bad.py")
    assert (done.code, done.out) == (4, "")
    assert re.search(f"--plugin .*bad.py {words}", done.one_line("newllm: --plugin"))


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"no such plugin: .*missing.py"):
        use_file(tmp_path / "missing.py")


def test_a_file_wins_over_a_distribution_and_says_so(site, file, caplog):
    site.install("newllm-child", {"child": "nowhere:Child"})
    use_file(file)
    assert REGULARIZERS.load("child").__name__ == "Child"
    assert [entry.status for entry in entries("child")] == ["available", "ignored"]
    assert "'child' of newllm-child 1.2 (nowhere:Child) is ignored" in caplog.text


def test_a_file_may_not_take_a_name_of_newllms_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE.replace("class Child", "class EmaVariance"))
    use_file(path)
    with pytest.raises(PluginError, match=r"is newllm's own: rename the class of .*:EmaVariance"):
        REGULARIZERS.load("ema-variance")
    assert REGULARIZERS.load("none")


def test_two_files_with_one_name(file, tmp_path):
    other = tmp_path / "other.py"
    other.write_text(FILE)
    use_file(file)
    use_file(other)
    with pytest.raises(PluginError, match=r"spread.py:Child\); rename one"):
        REGULARIZERS.find("child")


def test_a_taken_name_is_ignored_and_named(site, newllm, phase1, caplog):
    site.install("newllm-thief", {"none": "thief:Thief"}, thief="raise RuntimeError")
    line = "regularizer 'none' of newllm-thief 1.2 (thief:Thief) is ignored: newllm has that name"
    assert newllm("plugins").one_line(line)
    assert newllm("plugins", "--check").code == 4
    assert phase1("--reg", "none").code == 0
    assert caplog.messages == [f"warning: {line}"]


def test_two_distributions_clash_until_one_is_allowed(site, newllm, monkeypatch):
    source = "from newllm_core.regularizers.none import NoRegularizer as One"
    site.install("newllm-a", {"twice": "twice_a:One"}, twice_a=source)
    site.install("newllm_B", {"twice": "twice_b:One"}, twice_b=source)
    done = newllm("plugins", "--check", "--json")
    done.one_line("newllm-a 1.2 (twice_a:One) and newllm_B 1.2 (twice_b:One)", "NEWLLM_PLUGINS")
    assert done.code == 4
    monkeypatch.setenv("NEWLLM_PLUGINS", "newllm-b")
    assert REGULARIZERS.find("twice").target == "twice_b:One"
    assert newllm("plugins", "--check").code == 0


@pytest.mark.parametrize("allowed", ["", "other", "newllm-x-else"])
def test_the_allow_list_keeps_others_out(site, newllm, monkeypatch, allowed):
    site.install("newllm-x", {"extra": "nowhere:X"}, summary="About it.")
    monkeypatch.setenv("NEWLLM_PLUGINS", allowed)
    with pytest.raises(ConfigError, match=r"'extra' of newllm-x 1.2 .* is not allowed: NEWLLM_PL"):
        REGULARIZERS.load("extra")
    assert REGULARIZERS.load("none")
    (entry,) = entries("extra")
    assert (entry.status, entry.problem, entry.description) == ("not allowed", "", "About it.")
    assert newllm("plugins", "--check").code == 0


def test_the_allow_list_is_about_what_is_installed_not_about_files(file, monkeypatch):
    monkeypatch.setenv("NEWLLM_PLUGINS", "")
    use_file(file)
    assert REGULARIZERS.load("spread-out").__name__ == "SpreadOut"


@pytest.mark.parametrize("allowed", ["extra", "a, newllm_x", "NewLLM.X"])
def test_the_allow_list_names_plugins_or_distributions(site, monkeypatch, allowed):
    site.install("newllm-x", {"extra": "nowhere:X"})
    monkeypatch.setenv("NEWLLM_PLUGINS", allowed)
    assert REGULARIZERS.find("extra").target == "nowhere:X"


def test_an_allow_list_that_names_nothing_is_said_once(site, newllm, monkeypatch, caplog):
    site.install("newllm-x", {"extra": "nowhere:X"})
    monkeypatch.setenv("NEWLLM_PLUGINS", "newlm-x,, Extra,gru")
    for _ in range(2):
        assert REGULARIZERS.load("none")
    words = "NEWLLM_PLUGINS: unknown plugin or distribution 'newlm-x'; did you mean 'newllm-x'?"
    (line,) = caplog.messages
    assert words in line
    assert words in newllm("plugins").err
    monkeypatch.setenv("NEWLLM_PLUGINS", "nope")
    assert "unknown plugin or distribution 'nope' (known: " in newllm("plugins").err


def test_an_unfinished_installation_hides_nobody(site):
    info = site.folder / "newllm_half-1.dist-info"
    info.mkdir()
    (info / "entry_points.txt").write_text("[newllm.regularizers]\nhalf = half:Half\n")
    assert REGULARIZERS.load("none")
    assert DATA_SOURCES.plugins()
    (entry,) = entries("half")
    assert entry.status == "broken"
