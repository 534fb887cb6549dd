"""`analyze FOREIGN`: a file or folder of any kind and a text, examined."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from newllm_core.analysis.analyze import Tokens, examine
from newllm_core.analysis.foreign.base import Network, named
from newllm_core.analysis.foreign.step_file import open_step_file
from newllm_core.checkpoint.format import is_checkpoint
from newllm_core.config.values import shown
from newllm_core.data.dataset_info import INFO_FILE
from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources import tokens as token_files
from newllm_core.errors import ConfigError, InputError, PluginError
from newllm_core.files.from_strangers import read_text, regular_file
from newllm_core.files.npy_files import open_array
from newllm_core.plugins.registry import RECURRENCES
from newllm_core.runtime.device import WITHOUT_FLOAT64

FOLDERS = "transformers"


def open_network(
    path: Path, kind: str | None, *, embedding: str | None, seed: int, device: torch.device
) -> Network:
    """Open a foreign network, see `Foreign.open`, or raise `ConfigError` or `PluginError`.

    `kind` is a name of `newllm.recurrences`; a Python file and a folder say it themselves.
    """
    kind = _kind_of(path, kind)
    if kind is None:
        return open_step_file(path.absolute())
    network_type = RECURRENCES.load(kind)
    with RECURRENCES.blame(kind):
        opened: Network = network_type().open(path, embedding=embedding, seed=seed, device=device)
    plugin = RECURRENCES.find(kind)
    return opened if plugin.is_own else named(opened, RECURRENCES.describe(plugin), plugin)


def require_openable(path: Path, tokens: Sequence[Path], kind: str | None) -> None:
    """Raise `InputError` or `ConfigError` for what `examine_file` would find out after a while."""
    if os.path.exists(path / INFO_FILE):
        raise InputError(
            f"{path} is prepared data, which other networks read as --tokens: give a checkpoint "
            "that was trained on it, as newllm phase1 --data makes one"
        )
    found = _kind_of(path, kind)
    if found is not None:
        RECURRENCES.find(found)
    if not tokens:
        raise ConfigError(f"{path} has no text: give --tokens FILE, token ids or a prepared folder")
    for file in tokens:
        if not os.path.isdir(file):
            regular_file(file, "file of --tokens")


def _kind_of(path: Path, kind: str | None) -> str | None:
    """Return a name of `newllm.recurrences`, None of a Python file."""
    is_own = kind is not None and RECURRENCES.find(kind).is_own
    if path.suffix == ".py":
        regular_file(path, "plugin")
        return None
    # A plugin may open folders; newllm's own kinds are files.
    if kind is not None and not (os.path.isdir(path) and is_own):
        return kind
    if os.path.isdir(path):
        if not os.path.exists(path / "config.json"):
            raise InputError(f"{path} is a folder without a config.json: it holds no network")
        if FOLDERS not in RECURRENCES.plugins():
            raise ConfigError(
                f"{path} is a folder, which newllm-hub opens: "
                "pip install './plugins/newllm-hub[transformers]'"
            )
        return FOLDERS
    if is_checkpoint(path):
        raise ConfigError(
            f"{path} is a checkpoint of newllm and holds the text it is analysed on: leave out "
            "--tokens and --embedding (newllm evaluate --text FILE predicts another text)"
        )
    known = ", ".join(RECURRENCES.plugins())
    raise ConfigError(f"which kind of network is {path}? give --as, one of {known}")


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
    require_openable(path, tokens, kind)
    if device is None or device.type in WITHOUT_FLOAT64:
        device = torch.device("cpu")
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
    if len(paths) == 1 and os.path.isdir(paths[0]):
        dataset = open_dataset(paths[0])
        paths = [paths[0], paths[0]]
        found: list[np.ndarray] = [dataset.train.tokens, dataset.validation.tokens]
    else:
        found = [_ids(path, network) for path in paths]
    if len(found) > 2:
        raise ConfigError("--tokens: give one text, or two, training and validation")
    for path, ids in zip(paths, found, strict=True):
        lowest, highest = (int(ids.min()), int(ids.max())) if ids.size else (0, -1)
        if lowest < 0:
            raise InputError(f"--tokens {path} has the id {lowest:,}, ids count from 0")
        if network.vocab_size is not None and highest >= network.vocab_size:
            raise InputError(
                f"--tokens {path} has the id {highest:,}, the network has "
                f"{network.vocab_size:,} tokens"
            )
    return found[0] if len(found) == 1 else (found[0], found[1])


def _ids(path: Path, network: Network) -> np.ndarray:
    if os.path.isdir(path):
        raise ConfigError(f"--tokens {path}: a folder has two texts already: give it alone")
    if path.suffix == ".npy":
        ids = open_array(path, ".npy file of token ids")
        if ids.dtype.kind not in "iu":
            raise InputError(f"{path} holds {ids.dtype}, expected token ids: whole numbers")
        return ids.reshape(-1)
    if path.suffix in token_files.READERS:
        documents = token_files.Tokens(str(path)).documents()
        return np.array([id for document in documents for id in document.tokens or ()], np.int64)
    if network.encode is None:
        raise ConfigError(
            f"{path} is text and the network has no tokenizer: give token ids, as a .npy file of "
            "integers or a folder of newllm prepare"
        )
    text = read_text(path, "text that --tokens takes (its beginning will do)")
    ids = np.asarray(network.encode(text))
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise PluginError(f"encode returned {shown(ids.tolist())}, expected a list of token ids")
    return ids.astype(np.int64)
