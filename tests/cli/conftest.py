import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from newllm_core.plugins.plugin import FROM_FILES
from tests.few import FEW_FLAGS
from tests.forked import start
from tests.open_gate import OPEN

from .inside import CommandLine

TINY = (
    "--threads=1",
    "--context-dim=16",
    "--embed-dim=16",
    *FEW_FLAGS,
)
SMALL = (*TINY, "--max-iterations=3")
VALIDATION = ("--val-fraction=0.2", "--val-token-policy=keep")
# Few streams make many steps of a small text.
STEPS = ("--threads=1", "--num-streams=16", "--max-tokens=6000", "--learning-rate=0.004")


@dataclass
class Finished:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


def run(*arguments, cwd, **environment):
    """Run the command line as a user would, in its own process."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        environment = {"HF_HUB_OFFLINE": "1"} | environment
        process = start(*arguments, cwd=cwd, environment=environment, stdout=out, stderr=err)
        process.join(300)
        assert process.exitcode is not None
        return Finished(process.exitcode, out.read_text("utf-8"), err.read_text("utf-8"))


@pytest.fixture
def newllm(monkeypatch, capsys, tmp_path):
    """The command line in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    yield CommandLine(monkeypatch, capsys)
    FROM_FILES.clear()


def write_corpus(path: Path, documents: int = 60) -> Path:
    """Sentences of a small grammar: learnable, and different in every document."""
    nouns = ["cat", "dog", "bird", "fish", "horse", "child", "teacher", "river"]
    verbs = ["sees", "likes", "follows", "hears", "finds"]
    text = []
    for number in range(documents):
        lines = [
            f"The {nouns[(number + 3 * i) % 8]} {verbs[(number * i + i) % 5]} "
            f"the {nouns[(number * 5 + i) % 8]} on day {number} at {i}."
            for i in range(12)
        ]
        text.append("\n".join(lines))
    path.write_text("\n\n".join(text), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder in which the whole pipeline was run once: data, phase1, phase2, expanded, heads."""
    folder = tmp_path_factory.mktemp("pipeline")
    corpus = write_corpus(folder / "corpus.txt")
    source = ("--source=text-file", f"--input={corpus}", "--document-separator=\\n\\n")
    steps = {
        "prepare": ("prepare", *source, "--out=data", "--vocab-size=350", *VALIDATION),
        "phase1": ("phase1", "--data=data", *SMALL),
        "phase2": ("phase2", "runs/phase1.safetensors", "--epochs=2", *STEPS),
        "expand": ("expand", "runs/phase2.safetensors", "--threads=1"),
        "heads": (
            *("phase2", "runs/expanded.safetensors", "--epochs=1", *STEPS, *OPEN),
            "--out=runs/heads.safetensors",
        ),
    }
    results = {name: run(*arguments, "--json", cwd=folder) for name, arguments in steps.items()}
    failed = {name: result.err for name, result in results.items() if result.code}
    assert not failed
    return folder, results
