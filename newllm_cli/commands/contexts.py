"""`newllm contexts`: every context of a text, for whatever comes next."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.options import JsonOption, OverwriteOption, Settings, with_settings


@with_settings("run")
def contexts(
    given: Settings,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of any phase.", metavar="CKPT")],
    text: Annotated[
        str, typer.Option(help="UTF-8 text of any length (- is stdin).", metavar="FILE|-")
    ],
    out: Annotated[Path, typer.Option(help="File to write; its ending says how.", metavar="FILE")],
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write the context after every token of a text, with token ids and places in the text.

    FILE.safetensors holds contexts (float32, tokens x dimensions), tokens (ids) and offsets (byte
    begin and end of each token in the text, a byte order mark not counted). FILE.npy holds the
    contexts alone; the others are FILE.tokens.npy and FILE.offsets.npy. A token that is a part of
    a character has the place of the whole character.

    The text is read as one stream, so contexts are exact and memory does not grow with it: one
    step of the model a token, some thousands a second. More threads do not make it faster; parts
    of a text can be written side by side where their contexts need not know of each other.

    Examples:
        newllm contexts runs/phase1.safetensors --text book.txt --out book.safetensors

        gunzip -c book.txt.gz | newllm contexts runs/phase2.safetensors --text - --out book.npy
    """
    import os

    from newllm_cli.output import print_json
    from newllm_cli.progress import StderrProgress
    from newllm_cli.streams import text_chunks

    config = given.resolve()

    from newllm_core.checkpoint.format import load
    from newllm_core.evaluation.contexts import output_files, write_contexts
    from newllm_core.runtime.device import prepare_device

    output_files(out, overwrite=overwrite)
    progress = StderrProgress(given)
    loaded = load(checkpoint, device=prepare_device(config.run), progress=progress)
    size = os.path.getsize(text) if os.path.isfile(text) else None
    with progress.task("reading", size, "bytes") as task:
        written = write_contexts(
            loaded,
            text_chunks(text),
            out,
            name="stdin" if text == "-" else text,
            overwrite=overwrite,
            task=task,
        )
    summary = {"schema": 1, "checkpoint": str(checkpoint), "text": text, **written}
    if json:
        print_json(summary)
    else:
        count, dim = written["num_tokens"], written["context_dim"]
        print(f"{count:,} contexts of {dim} numbers in {', '.join(written['files'])}")
