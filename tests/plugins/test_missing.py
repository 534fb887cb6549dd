"""A checkpoint whose plugin is not here any more."""

import sys

import pytest

SOURCE = """
from newllm_core.regularizers.covariance_ema import CovarianceEma
class Gone(CovarianceEma): pass
"""


@pytest.fixture
def checkpoint(site, phase1, tmp_path):
    site.install("newllm-gone", {"gone": "gone_plugin:Gone"}, gone_plugin=SOURCE)
    assert phase1("--reg", "gone").code == 0
    return tmp_path / "phase1.safetensors"


def test_it_can_be_analysed_and_says_what_is_missing(checkpoint, site, newllm, monkeypatch):
    report = newllm("analyze", checkpoint, "--json").json
    assert report["missing_plugins"] == []
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part != str(site.folder)])
    done = newllm("analyze", checkpoint, "--json")
    assert done.code == 0
    (line,) = done.json["missing_plugins"]
    assert line == (
        "regularizer 'gone' of newllm-gone 1.2 is not here: install it to train like this again "
        "(analysis does not need it)"
    )
    assert f"warning: {line}" in done.err
    assert done.json["train"] == report["train"]


def test_training_with_it_again_is_a_clear_error(checkpoint, site, phase1, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [part for part in sys.path if part != str(site.folder)])
    done = phase1("--reg", "gone", out=tmp_path / "again.safetensors")
    assert done.code == 2
    done.one_line("unknown regularizer 'gone'", "give --plugin FILE.py or install the package")


def test_a_file_that_is_not_given_again(newllm, phase1, tmp_path):
    from newllm_core.plugins.plugin import FROM_FILES

    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    assert phase1("--reg", "gone", "--plugin", path).code == 0
    FROM_FILES.clear()
    done = newllm("analyze", tmp_path / "phase1.safetensors")
    assert done.code == 0
    assert f"regularizer 'gone' of {path}:Gone sha256:" in done.err
    assert "give it with --plugin to train like this again (analysis does not need it)" in done.err


@pytest.mark.parametrize(
    ("kind", "purpose"),
    [
        ("data source", "prepare this data again (analysis does not need it)"),
        ("cell", "use the model"),
    ],
)
def test_what_a_plugin_of_a_file_is_needed_for(kind, purpose):
    from newllm_core.plugins.missing import missing_plugins

    record = {"kind": kind, "name": "gone", "distribution": "file", "version": "sha256:1"}
    assert missing_plugins({"plugins": [record]}) == [
        f"{kind} 'gone' of a file sha256:1 is not here: give it with --plugin to {purpose}"
    ]
