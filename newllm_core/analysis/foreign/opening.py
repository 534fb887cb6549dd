"""`analyze FOREIGN`: a file or folder of any kind and a text, examined.

A Python file is a network if it has a `step` function:

    def step(state, ids): ...      # ids [B]; the state a tensor or a nest of them, batch B
    start = torch.zeros(1, 64)     # the state before any token, batch one

and if they are there `control` (a step), `parameters`, `vocab_size`, `encode`, `text`, `values`
(see `Network`).
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from newllm_core.analysis.analyze import Tokens, examine
from newllm_core.analysis.foreign.base import Network
from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources import tokens as token_files
from newllm_core.errors import ConfigError, InputError, PluginError
from newllm_core.files.from_strangers import read_text, regular_file
from newllm_core.files.npy_files import open_array
from newllm_core.plugins.guard import one_line, stdout_to_stderr
from newllm_core.plugins.plugin import import_file
from newllm_core.plugins.registry import RECURRENCES

FOLDERS = "transformers"


def open_network(
    path: Path, kind: str | None, *, embedding: str | None, seed: int, device: torch.device
) -> Network:
    """Open a foreign network, see `Foreign.open`, or raise `ConfigError` or `PluginError`.

    `kind` is a name of `newllm.recurrences`; a Python file and a folder say it themselves.
    """
    if kind is None and path.suffix == ".py":
        return _open_step_file(regular_file(path, "plugin").absolute())
    if kind is None and path.is_dir():
        kind = FOLDERS
        if kind not in RECURRENCES.plugins():
            raise ConfigError(
                f"{path} is a folder, which newllm-hub reads: in newllm's repository, "
                "pip install './plugins/newllm-hub[transformers]'"
            )
    if kind is None:
        known = ", ".join(RECURRENCES.plugins())
        raise ConfigError(f"which kind of network is {path}? give --as, one of {known}")
    network_type = RECURRENCES.load(kind)
    with RECURRENCES.blame(kind):
        opened: Network = network_type().open(path, embedding=embedding, seed=seed, device=device)
    return opened


def _open_step_file(path: Path) -> Network:
    """Import a file with a `step`; it decides where it computes."""
    try:
        with stdout_to_stderr():
            module = import_file(path)
    except Exception as error:  # a file may raise anything at import
        raise PluginError(f"{path} cannot be imported: {one_line(error)}") from error
    given = {s.name: getattr(module, s.name) for s in fields(Network) if hasattr(module, s.name)}
    if not callable(given.get("step")) or "start" not in given:
        raise PluginError(f"{path} needs a function step(state, ids) and a state named start")
    return Network(**given)


def examine_file(
    path: Path,
    tokens: Sequence[Path],
    *,
    kind: str | None = None,
    embedding: str | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    with_control: bool = True,
    **options: Any,  # noqa: ANN401 - `config` and `progress` of `examine`
) -> dict[str, Any]:
    """Return the report of `examine` on a foreign network, with `parameters`.

    `tokens` is the text, or two of them, training and validation: token ids in any file of the
    source `tokens`, a text file if the network has a tokenizer, or a folder of `prepare`. The
    untrained twin is looked at only `with_control`.
    """
    if not tokens:
        raise ConfigError(f"{path} is no checkpoint of newllm and has no text: give --tokens FILE")
    device = device or torch.device("cpu")
    network = open_network(path, kind, embedding=embedding, seed=seed, device=device)
    report = examine(
        network.step,
        _read_tokens(tokens, network),
        start=network.start,
        control=network.control if with_control else None,
        values=network.values,
        text=network.text,
        seed=seed,
        name=str(path),
        **options,
    )
    return report | {"parameters": network.parameters}


def _read_tokens(paths: Sequence[Path], network: Network) -> Tokens:
    if len(paths) == 1 and paths[0].is_dir():
        dataset = open_dataset(paths[0])
        paths = [paths[0], paths[0]]
        found: list[np.ndarray] = [dataset.train.tokens, dataset.validation.tokens]
    else:
        found = [_ids(path, network) for path in paths]
    if len(found) > 2:
        raise ConfigError("--tokens: give one text, or two, training and validation")
    for path, ids in zip(paths, found, strict=True):
        highest = int(ids.max()) if ids.size else -1
        if network.vocab_size is not None and highest >= network.vocab_size:
            raise InputError(
                f"--tokens {path} has the id {highest:,}, the network has "
                f"{network.vocab_size:,} tokens"
            )
    return found[0] if len(found) == 1 else (found[0], found[1])


def _ids(path: Path, network: Network) -> np.ndarray:
    if path.suffix == ".npy":
        ids = open_array(path, ".npy file of token ids")
        if ids.dtype.kind not in "iu" or (ids.size and ids.min() < 0):
            raise InputError(f"{path} holds {ids.dtype}, expected token ids")
        return ids.reshape(-1)
    if path.suffix in token_files.READERS:
        documents = token_files.Tokens(str(path)).documents()
        return np.array([id for document in documents for id in document.tokens or ()], np.int64)
    if network.encode is None:
        raise ConfigError(
            f"{path} is text and the network has no tokenizer: give token ids, as a .npy file of "
            "integers or a folder of newllm prepare"
        )
    return np.array(network.encode(read_text(path)), np.int64)
