"""`newllm prepare`: text into tokens."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.options import EncodingOption, JsonOption, OverwriteOption, Settings, with_settings


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
    encoding: EncodingOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    r"""Turn text into one folder of tokens, tokenizer and counts.

    Examples:
        newllm prepare
        newllm prepare --source text-file --input book.txt --document-separator '\n\n'
        newllm prepare --source rows --input chats.jsonl.gz
        newllm prepare --source rows --input hub:roneneldan/TinyStories --max-documents 10000
        newllm prepare --source wikitext --input train.txt --val-input valid.txt --out data
    """
    from newllm_cli.output import console, print_json
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render import render_dataset
    from newllm_core.pipeline import commands
    from newllm_core.plugins.guard import stdout_to_stderr

    with stdout_to_stderr():  # a plugin may print while it reads
        # Not through the front door, which opens what it wrote: that reads all of it once more.
        folder, info = commands.prepare(
            given,
            out,
            document_separator=document_separator,
            encoding=encoding,
            overwrite=overwrite,
            progress=StderrProgress(given),
        )
    if json:
        print_json({"schema": 1, "dataset": str(folder), **info.to_dict()})
    else:
        render_dataset(str(folder), info.to_dict(), console())
