from types import SimpleNamespace

import pytest

from newllm_core.config import Config, DataConfig
from newllm_core.data.prepare import prepare
from newllm_core.training.saver import RunSaver
from tests.cli.conftest import write_corpus
from tests.robustness.runs import content, metrics, train


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with prepared data and a checkpoint to start Phase 2 from."""
    folder = tmp_path_factory.mktemp("home")
    corpus = write_corpus(folder / "corpus.txt", documents=30)
    config = DataConfig(
        source="text-file",
        input=str(corpus),
        vocab_size=350,
        val_fraction=0.04,
        val_token_policy="keep",
    )
    prepare(Config(data=config, source={"document_separator": "\n\n"}), folder / "data")
    train("parallel", folder, folder / "base.safetensors", resume=False)
    return folder


@pytest.fixture(scope="session")
def reference(home, tmp_path_factory):
    """What each case's run makes when nothing happens to it: bytes of the checkpoint, metrics."""
    made = {}

    def find(case):
        if case not in made:
            out = tmp_path_factory.mktemp(case) / "run.safetensors"
            result = train(case, home, out, resume=False)
            made[case] = SimpleNamespace(
                content=content(out), metrics=metrics(out), history=result.history, path=out
            )
        return made[case]

    return find


@pytest.fixture
def stop_after(monkeypatch):
    """Ask a run to stop at its n-th point, as a signal would; `points` counts them."""
    point = RunSaver.maybe_save

    def arrange(number):
        seen = []

        def counted(self, state):
            seen.append(number)
            if len(seen) == number:
                self.interruption.asked = True
            point(self, state)

        monkeypatch.setattr(RunSaver, "maybe_save", counted)
        return seen

    return arrange
