"""Which damage a file of each kind may get: blind, or by somebody who knows its format."""

from tests.robustness.fuzzing.mutations.blind import BLIND
from tests.robustness.fuzzing.mutations.json_values import json_value
from tests.robustness.fuzzing.mutations.npy_files import npy_header
from tests.robustness.fuzzing.mutations.safetensors_files import (
    header_size,
    header_value,
    metadata_value,
    tensor_entry,
    tensor_values,
)
from tests.robustness.fuzzing.mutations.toml_files import toml_value

SAFETENSORS = [header_value, header_size, tensor_entry, tensor_values]
WAYS = {
    "checkpoint": [*BLIND, *SAFETENSORS, *[metadata_value] * 8],
    "safetensors": [*BLIND, *SAFETENSORS, tensor_entry],
    "json": [*BLIND, *[json_value] * 12],
    "npy": [*BLIND, *[npy_header] * 8],
    "toml": [*BLIND, *[toml_value] * 12],
    "lines": [*BLIND, *BLIND],
    "bytes": BLIND,
}


def mutate(random, data, kind):
    """What was done, and the damaged bytes."""
    way = random.choice(WAYS[kind])
    return way.__name__, way(random, data)
