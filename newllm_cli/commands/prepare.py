"""`newllm prepare`: text into tokens."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from newllm_cli.options import (
    JsonOption,
    OverwriteOption,
    Settings,
    default_path,
    with_settings,
)

if TYPE_CHECKING:
    from newllm_core.config import Config
    from newllm_core.data.prepared import DatasetInfo
    from newllm_core.runtime.progress import Progress


@with_settings("data", "run")
def prepare(
    given: Settings,
    out: Annotated[
        Path | None, typer.Option(help="Folder to write.", show_default="runs/data")
    ] = None,
    document_separator: Annotated[
        str | None,
        typer.Option(help=r"Where text-file and text-dir split a file, e.g. '\n\n'."),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    r"""Turn text into one folder of tokens, tokenizer and counts.

    Examples:
        newllm prepare

        newllm prepare --source text-file --input book.txt --document-separator '\n\n'

        newllm prepare --source wikitext --input train.txt --val-input valid.txt --out data
    """
    from newllm_cli.output import console, print_json
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render import render_dataset

    if document_separator is not None:
        given.layers.append({"source": {"document_separator": document_separator}})
    folder = default_path(out, "data")
    info = prepare_dataset(given.resolve(), folder, overwrite=overwrite, progress=StderrProgress())
    if json:
        print_json({"schema": 1, "dataset": str(folder), **info.to_dict()})
    else:
        render_dataset(str(folder), info.to_dict(), console())


def prepare_dataset(
    config: "Config", out: Path, *, overwrite: bool, progress: "Progress"
) -> "DatasetInfo":
    """Prepare what `config` says into `out`."""
    from newllm_core.data.prepare import prepare as prepare_data
    from newllm_core.plugins.guard import stdout_to_stderr

    with stdout_to_stderr():  # a plugin may print while it reads
        return prepare_data(
            config.data,
            config.source,
            out,
            seed=config.run.seed,
            overwrite=overwrite,
            progress=progress,
        )
