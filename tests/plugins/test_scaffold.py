"""What `newllm plugins new` writes passes its own tests and plugs in."""

import resource
import tomllib

import pytest

from newllm_core.plugins.files import use_file
from tests.forked import start


@pytest.mark.parametrize("kind", ["cell", "objective", "regularizer", "data-source"])
@pytest.mark.parametrize("name", ["spread-out"])
def test_a_new_plugin_passes_its_own_make_test(name, kind, newllm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = newllm("plugins", "new", name, "--kind", kind)
    assert done.code == 0
    assert "cd newllm-spread-out && make install && make test" in done.out
    folder = tmp_path / "newllm-spread-out"
    assert "$(PYTHON) -m pytest" in (folder / "Makefile").read_text()
    said = tmp_path / "said.txt"
    # As `make test` does, which .ci/plugins runs, but without waiting for torch.
    ran = start(cwd=folder, program=pytest.main, stdout=said, stderr=said)
    ran.join(100)
    assert ran.exitcode == 0, said.read_text()
    assert "2 passed" in said.read_text()
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    group = f"newllm.{kind.replace('-', '_')}s"
    assert project["entry-points"] == {group: {name: "newllm_spread_out:SpreadOut"}}
    readme = (folder / "README.md").read_text()
    assert readme.index("make install") < readme.index("make test") < readme.index("--plugin")
    assert "runs/" in (folder / ".gitignore").read_text().splitlines()
    assert "include Makefile" in (folder / "MANIFEST.in").read_text().splitlines()
    # The same file serves as a first try under the same name.
    (given,) = use_file(folder / "newllm_spread_out.py")
    assert given.name == name


def test_as_json_it_says_where(newllm, tmp_path):
    folder = tmp_path / "mine"
    done = newllm("plugins", "new", "spread", "--kind", "cell", "--out", folder, "--json")
    assert done.json == {"schema": 1, "kind": "cell", "folder": str(folder)}


@pytest.mark.parametrize("name", ["Spread", "spread_out", "3d", "-x", "a--b", "newllm-", "a/b"])
def test_names_that_cannot_be(name, newllm, tmp_path):
    done = newllm("plugins", "new", "--kind", "regularizer", "--out", tmp_path / "x", "--", name)
    assert done.code == 2
    done.one_line("cannot name a plugin")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *(("core", "module newllm_core"), ("cli", "module newllm_cli"), ("none", "class None")),
        *(("document", "class Document"), ("exception", "class Exception")),
    ],
)
def test_names_that_exist(name, what, newllm, tmp_path):
    done = newllm("plugins", "new", name, "--kind", "data-source", "--out", tmp_path / "x")
    assert done.code == 2
    done.one_line(f"{name!r} would be {what}, which exists: choose another name")
    assert not (tmp_path / "x").exists()


def test_a_folder_appears_whole_or_not_at_all(newllm, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        done = newllm("plugins", "new", "other", "--kind", "cell", "--out", tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert done.code == 3
    done.one_line(f"cannot write {tmp_path / 'x'}: File too large; free some space")
    assert list(tmp_path.iterdir()) == []


def test_taken_names_and_folders(newllm, tmp_path):
    done = newllm("plugins", "new", "none", "--kind", "regularizer", "--out", tmp_path / "x")
    assert done.code == 2
    done.one_line("regularizer 'none' is taken by newllm")
    (tmp_path / "x").mkdir()
    done = newllm("plugins", "new", "other", "--kind", "regularizer", "--out", tmp_path / "x")
    assert done.code == 3
    done.one_line(f"{tmp_path / 'x'} exists: choose another --out, or remove it")
    done = newllm("plugins", "new", "other", "--kind", "cel")
    assert done.code == 2
    done.one_line("unknown kind 'cel'; did you mean 'cell'? (known: cell, objective, regularizer,")
