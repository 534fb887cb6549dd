"""Options of commands that look into somebody else's networks."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

ForeignOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="KIND",
        help="What a foreign network is: gru, lstm, rnn, reservoir, or a plugin.",
    ),
]
EmbeddingOption = Annotated[
    str | None,
    typer.Option(metavar="TENSOR", help="What token ids stand for in a foreign network's file."),
]
TokensOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="FILE",
        help="What a foreign network reads: token ids, a text if it has a tokenizer, or a prepared "
        "folder. Repeat it for validation text.",
    ),
]


def is_foreign(path: Path, *given: str | Sequence[Path] | None) -> bool:
    """Say whether a file is no checkpoint of newllm, by how it was given: with which options."""
    return any(given) or path.suffix == ".py" or os.path.isdir(path)


def refuse_contradiction(path: Path, kind: str | None, embedding: str | None) -> None:
    """Raise `ConfigError` for options about weights where a file or folder says itself what it is.

    A plugin may open folders; newllm's own kinds are files.
    """
    from newllm_core.errors import ConfigError
    from newllm_core.plugins.registry import RECURRENCES

    is_step, is_folder = path.suffix == ".py", os.path.isdir(path)
    is_own = kind is not None and RECURRENCES.find(kind).is_own
    if kind is not None and (is_step or (is_folder and is_own)):
        raise ConfigError(f"{path} says itself what it is: leave out --as {kind}")
    if embedding is not None and (is_step or kind is None) and is_foreign(path):
        raise ConfigError(f"{path} says itself what ids stand for: leave out --embedding")


def named_or_step_file(path: Path | None) -> Path:
    """Return the file that was named, or the one `--plugin` file that has a step.

    Raises:
        ConfigError: neither was given, or several such files.
    """
    from newllm_core.errors import ConfigError
    from newllm_core.plugins.files import step_files

    found = [path] if path else step_files()
    if len(found) > 1:
        listed = " or ".join(map(str, found))
        raise ConfigError(f"which step is to be analysed, {listed}? give one of them as FILE")
    if not found:
        raise ConfigError("what is to be analysed? give a FILE, or --plugin FILE.py with a step")
    return found[0]
