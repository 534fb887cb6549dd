"""`analyze FOREIGN`: a file or folder of any kind and a text, examined."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from newllm_core.analysis.examination import Tokens, examine
from newllm_core.analysis.foreign.base import Network
from newllm_core.analysis.foreign.step_file import StepFile
from newllm_core.config import Config
from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources import tokens as token_files
from newllm_core.errors import ConfigError, InputError
from newllm_core.files.from_strangers import read_text
from newllm_core.files.npy_files import open_array
from newllm_core.plugins.registry import RECURRENCES
from newllm_core.runtime.progress import Progress

FOLDERS = "transformers"


def open_network(
    path: Path, kind: str | None, *, embedding: str | None, seed: int, device: torch.device
) -> Network:
    """Open a foreign network.

    Args:
        path: its file or folder.
        kind: a name of `newllm.recurrences`; a Python file and a folder say it themselves.
        embedding: see `Foreign.open`.
        seed: see `Foreign.open`.
        device: see `Foreign.open`.

    Raises:
        ConfigError: an unknown kind, or none was given.
        InputError: it cannot be read.
        PluginError: the kind cannot be loaded, or failed.
    """
    given: dict[str, Any] = {"embedding": embedding, "seed": seed, "device": device}
    if kind is None and path.suffix == ".py":
        return StepFile().open(path, **given)
    if kind is None and path.is_dir():
        kind = FOLDERS
        if kind not in RECURRENCES.plugins():
            raise ConfigError(f"{path} is a folder: pip install 'newllm-hub[transformers]' first")
    if kind is None:
        known = ", ".join(RECURRENCES.plugins())
        raise ConfigError(f"which kind of network is {path}? give --as, one of {known}")
    network_type = RECURRENCES.load(kind)
    with RECURRENCES.blame(kind):
        opened: Network = network_type().open(path, **given)
    return opened


def examine_file(
    path: Path,
    tokens: Sequence[Path],
    *,
    kind: str | None = None,
    embedding: str | None = None,
    config: Config | None = None,
    seed: int = 0,
    device: torch.device | None = None,
    progress: Progress | None = None,
    with_control: bool = True,
) -> dict[str, Any]:
    """Return the report of `examine` on a foreign network, with `parameters`.

    Args:
        path: see `open_network`.
        tokens: the text, or two of them, training and validation: token ids in any file of the
            source `tokens`, a text file if the network has a tokenizer, or a folder of `prepare`.
        kind: see `open_network`.
        embedding: see `open_network`.
        config: see `examine`.
        seed: see `examine`.
        device: where it computes.
        progress: see `examine`.
        with_control: whether the untrained twin is looked at too.

    Raises:
        ConfigError, InputError, PluginError, DivergedError: as `open_network` and `examine`.
    """
    if not tokens:
        raise ConfigError(f"{path} is no checkpoint of newllm and has no text: give --tokens FILE")
    device = device or torch.device("cpu")
    network = open_network(path, kind, embedding=embedding, seed=seed, device=device)
    report = examine(
        network.step,
        read_tokens(tokens, network),
        start=network.start,
        control=network.control if with_control else None,
        values=network.values,
        text=network.text,
        config=config,
        seed=seed,
        name=str(path),
        progress=progress,
    )
    return report | {"parameters": network.parameters}


def read_tokens(paths: Sequence[Path], network: Network) -> Tokens:
    """Return the token ids of one text, or of two.

    Raises:
        ConfigError: more than two, or a text and no tokenizer.
        InputError: one cannot be read, or has ids that the network does not have.
    """
    if len(paths) == 1 and paths[0].is_dir():
        dataset = open_dataset(paths[0])
        found: list[np.ndarray] = [dataset.train.tokens, dataset.validation.tokens]
    else:
        found = [_ids(path, network) for path in paths]
    if len(found) > 2:
        raise ConfigError("--tokens: give one text, or two, training and validation")
    for ids in found:
        highest = int(ids.max()) if ids.size else -1
        if network.vocab_size is not None and highest >= network.vocab_size:
            raise InputError(
                f"--tokens {paths[0]} has the id {highest:,}, the network has "
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
        return np.concatenate([np.array(document.tokens, np.int64) for document in documents])
    if network.encode is None:
        raise ConfigError(
            f"{path} is text and the network has no tokenizer: give token ids, as a .npy file of "
            "integers or a folder of newllm prepare"
        )
    return np.array(network.encode(read_text(path)), np.int64)
