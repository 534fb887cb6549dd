"""Distributions that exist only in a folder, and the command line run in this process."""

import sys

import pytest

from newllm_core.config import Config, DataConfig
from newllm_core.data.prepare import prepare
from newllm_core.plugins.plugin import FROM_FILES
from newllm_core.plugins.registry import REGISTRIES
from tests.cli.inside import CommandLine
from tests.few import FEW_FLAGS

GROUPS = {registry.kind: registry.group for registry in REGISTRIES}


class Site:
    """A folder on the import path, as if distributions were installed there."""

    def __init__(self, folder):
        self.folder = folder

    def install(self, name, entries, *, kind="regularizer", version="1.2", summary="", **modules):
        """The metadata of a distribution with `entries` (name: target), and its modules."""
        info = self.folder / f"{name.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        header = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nSummary: {summary}\n"
        (info / "METADATA").write_text(header)
        lines = [f"{key} = {target}" for key, target in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{GROUPS[kind]}]", *lines, ""]))
        for module, source in modules.items():
            (self.folder / f"{module}.py").write_text(source)


@pytest.fixture
def site(tmp_path_factory, monkeypatch):
    folder = tmp_path_factory.mktemp("site")
    monkeypatch.syspath_prepend(folder)
    before = set(sys.modules)
    yield Site(folder)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture(autouse=True)
def no_files():
    yield
    FROM_FILES.clear()


@pytest.fixture
def newllm(monkeypatch, capfd):
    """Run a command line; colours and width are those of a pipe."""
    return CommandLine(monkeypatch, capfd)


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A small prepared data set."""
    folder = tmp_path_factory.mktemp("plugins")
    text = folder / "text.txt"
    words = ["cat", "dog", "mat", "log"]
    lines = [f"the {words[i % 4]} sat {i} times on the {words[i * 3 % 4]}\n\n" for i in range(200)]
    text.write_text("".join(lines))
    config = DataConfig(source="text-file", input=str(text), vocab_size=300)
    prepare(Config(data=config, source={"document_separator": r"\n\n"}), folder / "data")
    return folder / "data"


@pytest.fixture
def phase1(newllm, dataset, tmp_path):
    """Run a very short phase 1; `out` is the checkpoint."""

    def run(*arguments, out=tmp_path / "phase1.safetensors"):
        small = "--context-dim 8 --embed-dim 8 --max-iterations 2 --min-iterations 1"
        options = [*small.split(), *FEW_FLAGS, "--data", dataset, "--out", out]
        return newllm("phase1", *options, *arguments)

    return run
