"""What `newllm plugins` and `newllm plugins show` say."""

import pytest

from newllm_core.plugins.listing import list_plugins
from newllm_core.plugins.locate import ModuleMissing, find_class, module_path
from newllm_core.plugins.plugin import OWN_DISTRIBUTION


def test_built_ins_are_described_and_located():
    own = [entry for entry in list_plugins() if entry.distribution == OWN_DISTRIBUTION]
    kinds = {"cell", "objective", "regularizer", "data source", "tracker", "recurrence"}
    assert {entry.kind for entry in own} == kinds
    for entry in own:
        assert entry.status == "available"
        assert len(entry.description) > 15
        with open(entry.file, encoding="utf-8") as file:
            line = file.read().splitlines()[entry.line - 1]
        assert line.startswith(f"class {entry.target.partition(':')[2]}(")


def test_the_table_shows_every_plugin(newllm, site):
    site.install("newllm-x", {"extra": "nowhere:X"}, summary="Something else.")
    done = newllm("plugins")
    assert done.code == 0
    for text in ("covariance-ema", "wikitext", "extra", "newllm-x 1.2", "broken", "Something"):
        assert text in done.out
    done.one_line("'extra' of newllm-x 1.2 (nowhere:X)", "no module named 'nowhere'")


def test_a_class_that_a_module_passes_on_has_the_words_of_its_package(site):
    source = "from newllm_core.regularizers.none import NoRegularizer as Relayed"
    site.install("newllm-x", {"extra": "relay:Relayed"}, summary="About it.", relay=source)
    (entry,) = [entry for entry in list_plugins() if entry.name == "extra"]
    assert (entry.description, entry.file, entry.line) == ("About it.", None, None)


def test_sources_that_do_not_tell(site):
    (site.folder / "damaged_a.py").write_text("def f(:")
    assert find_class("damaged_a", "Any") is None
    assert find_class("math", "Any") is None
    with pytest.raises(ModuleMissing, match=r"no module named 'newllm_core.nothing'"):
        module_path("newllm_core.nothing.at.all")


def test_a_nested_namespace_package_is_not_called_missing(site):
    (site.folder / "space_one" / "space_two").mkdir(parents=True)
    (site.folder / "space_one" / "space_two" / "leaf.py").write_text("class Leaf: 'It.'")
    (site.folder / "space_one" / "top.py").write_text("class Top: 'It.'")
    assert find_class("space_one.space_two.leaf", "Leaf") is None
    assert find_class("space_one.top", "Top").summary == "It."


def test_show(newllm):
    done = newllm("plugins", "show", "ema-variance")
    assert done.code == 0
    for text in (
        "newllm_core.regularizers.ema_variance:EmaVariance",
        "ema_variance.py:",
        "regularizer.momentum=0.99",
        "float, at least 0, at most 0.9999",
        "per-dimension|mean",
        "newllm phase1 --reg ema-variance --set regularizer.momentum=0.99",
    ):
        assert text in done.out
    (found,) = newllm("plugins", "show", "ema-variance", "--json").json["plugins"]
    assert found["options"][1] == {
        "name": "epsilon",
        "type": "float",
        "default": 0.01,
        "help": "Added to variances: dimensions far below it count as equally dead.",
        "low": 1e-8,
        "high": None,
        "choices": [],
    }


def test_show_a_data_source_and_one_without_options(newllm):
    done = newllm("plugins", "show", "text-file")
    assert "source.document_separator=none" in done.out
    assert "newllm prepare --source text-file --input PATH" in done.out
    assert "no options" in newllm("plugins", "show", "none").out


def test_the_example_that_show_gives_runs(newllm, phase1):
    (found,) = newllm("plugins", "show", "ema-variance", "--json").json["plugins"]
    program, command, *arguments = found["example"].split()
    assert (program, command) == ("newllm", "phase1")
    assert phase1(*arguments).code == 0


def test_show_an_unknown_name(newllm):
    done = newllm("plugins", "show", "ema")
    assert done.code == 2
    done.one_line("unknown plugin 'ema'", "ema-variance", "wikitext", "give --plugin FILE.py")


def test_the_help_has_examples_and_what_limits_plugins(newllm):
    shown = newllm("plugins", "--help").out
    assert "NEWLLM_PLUGINS=name,name allows only" in shown
    assert "\n  newllm plugins show ema-variance\n" in shown


def test_show_a_class_that_no_statement_made(site, newllm):
    source = (
        "from newllm_core.regularizers.none import NoRegularizer\n"
        "Made = type('Made', (NoRegularizer,), {'__module__': __name__, '__doc__': 'Made so.'})\n"
    )
    site.install("newllm-made", {"made": "made_plugin:Made"}, made_plugin=source)
    (found,) = newllm("plugins", "show", "made", "--json").json["plugins"]
    assert found["file"] == str(site.folder / "made_plugin.py")
    assert (found["line"], found["description"]) == (0, "Made so.")


DAMAGED = {
    "lines that are none": ("newllm_bad-1.dist-info", b"[newllm.regularizers]\nbad\n"),
    "bytes that are no text": ("newllm_bad-1.dist-info", b"[newllm.regularizers]\nbad = \xff:X\n"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_distribution_that_cannot_be_read_is_named_and_hides_no_other(newllm, site, case):
    folder, content = DAMAGED[case]
    site.install("newllm-fine", {"fine": "fine_plugin:Fine"}, fine_plugin="")
    (site.folder / folder).mkdir()
    (site.folder / folder / "entry_points.txt").write_bytes(content)
    done = newllm("plugins", "--json")
    assert done.code == 0
    names = {entry["name"] for entry in done.json["plugins"]}
    assert {"fine", "ema-variance", "wikitext", "gated", "cvfp"} <= names
    done.one_line(f"{folder} cannot be read", "install it again or remove it")


@pytest.mark.parametrize("folder", ["newllm_bad-1.dist-info", "-1.dist-info", "~ewllm-1.dist-info"])
def test_a_distribution_without_metadata_is_listed_with_the_others(newllm, site, folder):
    site.install("newllm-fine", {"fine": "fine_plugin:Fine"}, fine_plugin="")
    (site.folder / folder).mkdir()
    entries = "[newllm.regularizers]\nbad = nowhere:X\nempty =\ndots = a..b:C\n"
    (site.folder / folder / "entry_points.txt").write_text(entries)
    done = newllm("plugins", "--json")
    assert done.code == 0
    found = {entry["name"]: entry for entry in done.json["plugins"]}
    assert {"fine", "ema-variance", "bad", "empty", "dots"} <= set(found)
    assert (found["bad"]["distribution"], found["bad"]["status"]) == ("unknown", "broken")
    assert "no module named 'nowhere'" in done.err
    assert found["fine"]["status"] == "available"
    shown = newllm("plugins", "show", "empty")
    assert (shown.code, "Traceback" in shown.err) == (4, False)


def test_a_distribution_that_is_there_twice_does_not_clash_with_itself(site):
    site.install("newllm-x", {"extra": "nowhere:X"})
    site.install("NewLLM.X", {"extra": "older:X"}, version="1.0")
    assert [entry.status for entry in list_plugins() if entry.name == "extra"] == ["broken"]
