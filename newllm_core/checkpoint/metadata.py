"""What the metadata of a checkpoint must look like, so that nothing stumbles over it later.

Functions that read them return what they found, or raise `ValueError` with the place that is wrong.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from newllm_core.files.strict_json import parse_json
from newllm_core.files.tensor_files import bytes_of

if TYPE_CHECKING:
    from torch import Tensor

HASH = "content_hash"
SPLITS = ("train", "validation")
# What is told, by its kind and that of its parts: of gate and results these are the splits.
STRUCTURED: dict[str, tuple[type, type]] = {
    "history": (list, dict),
    "vacuous_terms": (list, str),
    "gate": (dict, dict),
    "results": (dict, dict),
    "provenance": (dict, dict),
}
PLUGIN_TEXTS = ("kind", "name", "distribution", "version")
KINDS: dict[type, str] = {dict: "mapping", list: "list", str: "text"}


def structured(metadata: dict[str, str]) -> dict[str, Any]:
    """Return what `STRUCTURED` names; figures are not looked at, see `Checkpoint.altered`."""
    found = {}
    for name, (kind, inner) in STRUCTURED.items():
        found[name] = value = _require(parse_json(metadata[name]), kind, name)
        for part in value if kind is list else map(value.get, SPLITS & value.keys()):
            _require(part, inner, f"a part of {name}")
    known_provenance(found["provenance"])
    return found


def known_provenance(value: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Return plugins and where the data was, as `provenance` has them; both may be left out."""
    records = _require(value, dict, "provenance").get("plugins", [])
    for number, record in enumerate(_require(records, list, "plugins")):
        _require(record, dict, f"plugins[{number}]")
        for key in PLUGIN_TEXTS:
            _require(record.get(key), str, f"plugins[{number}].{key}")
    _require(value.get("dataset_path", ""), str, "dataset_path")
    return value


def model_shape(metadata: dict[str, str]) -> dict[str, Any]:
    """Return `vocab_size`, `num_heads`, `seed` and `warmup`."""
    shape = _require(parse_json(metadata["model"]), dict, "model")
    for name, least in (("vocab_size", 1), ("num_heads", 1), ("warmup", 0), ("seed", None)):
        value = shape[name]
        if type(value) is not int or (least is not None and value < least):
            raise ValueError(f"model.{name} is {value!r}")
    return shape


def content_hash(metadata: Mapping[str, str], tensors: "Iterable[tuple[str, Tensor]]") -> str:
    """Return SHA-256 of all metadata but the hash itself, and of all tensors."""
    digest = hashlib.sha256()
    digest.update(json.dumps({k: metadata[k] for k in sorted(metadata) if k != HASH}).encode())
    for name, tensor in tensors:
        digest.update(name.encode("utf-8"))
        digest.update(bytes_of(tensor))
    return digest.hexdigest()


def _require(value: Any, kind: type, where: str) -> Any:  # noqa: ANN401 - any JSON value
    if not isinstance(value, kind):
        raise ValueError(f"{where} is no {KINDS[kind]}")
    return value
