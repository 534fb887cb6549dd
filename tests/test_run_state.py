"""The file that an unfinished run is continued from: what is in it comes back, or it is refused."""

import pytest
import torch

from newllm_core.checkpoint.run_state import State, identity_of, load_state, save_state
from newllm_core.config import Config, ModelConfig
from newllm_core.errors import ConfigError, InputError
from newllm_core.model.language_model import LanguageModel
from newllm_core.settings import resolve

IDENTITY = {"run.seed": 0, "dataset": "abc"}
TENSORS = {"parameter.0": torch.arange(6.0).view(2, 3), "optimizer.0.step": torch.tensor(7.0)}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.state"
    save_state(State(TENSORS, {"epoch": 3}), path, IDENTITY)
    return path


def test_what_was_saved_comes_back(path):
    found = load_state(path, IDENTITY)
    assert found.values == {"epoch": 3}
    assert found.path == path
    assert set(found.tensors) == set(TENSORS)
    assert torch.equal(found.part("parameter")["0"], TENSORS["parameter.0"])
    assert found.tensors["optimizer.0.step"].item() == 7


@pytest.mark.parametrize("what", ["a weight", "a position"])
def test_one_changed_byte_is_damage(path, what):
    content = bytearray(path.read_bytes())
    if what == "a weight":
        content[-2] ^= 1
    else:
        content[content.index(b"epoch") + len(b'epoch\\": ')] += 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="its hash is wrong") as caught:
        load_state(path, IDENTITY)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"run.seed": 1}, ConfigError, "run.seed was 0, is 1"),
        ({"dataset": "x"}, InputError, "dataset was 'abc', is 'x'"),
        ({"phase1.new": 5}, ConfigError, "phase1.new was None, is 5"),
        (
            {f"phase1.new{i}": "long " * 50 for i in range(9)},
            ConfigError,
            "and 4 others.*pass --overwrite",
        ),
    ],
)
def test_another_run_is_refused(path, changed, kind, message):
    with pytest.raises(kind, match=message):
        load_state(path, IDENTITY | changed)


def identity(config=None, *, seed=0, dataset="abc"):
    model = LanguageModel(ModelConfig(context_dim=4, embed_dim=4), 5, seed=seed)
    return identity_of(config or Config(), ("phase2", "run"), dataset, model, ())


def differing(one, other):
    return {key for key in one | other if one.get(key) != other.get(key)}


def test_a_run_is_known_by_settings_data_and_initial_weights():
    assert differing(identity(), identity()) == set()
    assert differing(identity(), identity(seed=1)) == {"initial weights"}
    assert differing(identity(), identity(dataset="x")) == {"dataset"}
    other = resolve(
        {"phase2": {"epochs": 9}, "phase1": {"max_iterations": 9}, "run": {"seed": 5, "threads": 3}}
    )
    assert differing(identity(), identity(other)) == {"phase2.epochs", "run.seed"}
