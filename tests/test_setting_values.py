"""Every way to write the value of a setting."""

import numpy as np
import pytest
import torch

from newllm_core.errors import ConfigError
from newllm_core.model.cells.residual import ResidualOptions
from newllm_core.settings import (
    make_section,
    resolve,
)


@pytest.mark.parametrize("nothing", ["none", "None", "null", None])
def test_none_undoes_an_earlier_layer(nothing):
    found = resolve({"phase1": {"max_tokens": 64}}, {"phase1": {"max_tokens": nothing}})
    assert found.phase1.max_tokens is None
    cell = resolve({"cell": {"hidden_dim": 64}}, {"cell": {"hidden_dim": nothing}}).cell
    assert make_section(ResidualOptions, "cell", cell).hidden_dim is None


@pytest.mark.parametrize("name", ["none", "None", "null"])
def test_a_file_may_be_named_like_nothing(name):
    assert resolve({"data": {"input": name}}).data.input == name
    assert resolve({"data": {"input": name}}, {"data": {"input": ""}}).data.input is None


@pytest.mark.parametrize(
    "written", ["2,3", "2, 3", "[2,3]", "[2, 3]", "(2, 3)", " [ 2 , 3 ] ", [2, 3], (2, 3), "2,3,"]
)
def test_every_way_to_write_a_list(written):
    assert resolve({"model": {"layer_structure": written}}).model.layer_structure == (2, 3)


def test_lists_of_one_and_of_numbers():
    assert resolve({"model": {"layer_structure": "4"}}).model.layer_structure == (4,)
    assert resolve({"phase2": {"head_weights": "1,0.5"}}).phase2.head_weights == (1.0, 0.5)
    assert resolve({"phase2": {"head_weights": [1, 2]}}).phase2.head_weights == (1.0, 2.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("true", True), ("YES", True), ("1", True), ("false", False), ("No", False), ("0", False)],
)
def test_every_way_to_write_a_truth(text, expected):
    assert resolve({"phase2": {"freeze_context": text}}).phase2.freeze_context is expected


@pytest.mark.parametrize("library", [np, torch])
def test_numbers_and_arrays_of_libraries(library):
    one, half = library.ones((), dtype=library.int64), library.ones((), dtype=library.float32) / 2
    model = {"context_dim": one, "layer_structure": library.ones(2, dtype=library.int64)}
    made = resolve({"model": model, "phase1": {"learning_rate": half}, "cell": {"depth": one}})
    assert (made.model.context_dim, made.model.layer_structure) == (1, (1, 1))
    assert (made.phase1.learning_rate, made.cell) == (0.5, {"depth": 1})
    assert type(made.cell["depth"]) is type(made.model.context_dim) is int
    with pytest.raises(ConfigError, match=r"phase1.max_iterations is 0.5: expected a"):
        resolve({"phase1": {"max_iterations": half}})


def test_numbers_may_be_grouped():
    assert resolve({"phase1": {"max_tokens": "1_000_000"}}).phase1.max_tokens == 1_000_000
