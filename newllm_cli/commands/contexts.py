"""`newllm contexts`: every context of a text, for whatever comes next."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.options import EncodingOption, JsonOption, OverwriteOption, Settings, with_settings


@with_settings("run")
def contexts(
    given: Settings,
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of any phase.", metavar="CKPT")],
    text: Annotated[str, typer.Option(help="Text of any length (- is stdin).", metavar="FILE|-")],
    out: Annotated[Path, typer.Option(help="File to write; its ending says how.", metavar="FILE")],
    encoding: EncodingOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Write the context after every token of a text, with token ids and places in the text.

    FILE.safetensors holds contexts (float32, tokens x dimensions), tokens (ids) and offsets (where
    each token begins and ends, in bytes of the text as UTF-8 without a byte order mark). FILE.npy
    holds the contexts alone; the others are FILE.tokens.npy and FILE.offsets.npy. A token that is
    a part of a character has the place of the whole character.

    The text is read as one stream, so contexts are exact and memory does not grow with it: one
    step of the model a token, some thousands a second. More threads do not make it faster; parts
    of a text can be written side by side where their contexts need not know of each other.

    Examples:
        newllm contexts runs/phase1.safetensors --text book.txt --out book.safetensors
        gunzip -c book.txt.gz | newllm contexts runs/phase2.safetensors --text - --out book.npy
    """
    from newllm_cli.output import print_json
    from newllm_cli.progress import StderrProgress
    from newllm_cli.streams import text_chunks

    given.resolve()  # a mistyped setting is reported before torch is loaded

    from newllm_core.checkpoint.format import load
    from newllm_core.data.sources.decoding import text_bytes
    from newllm_core.data.sources.files import located
    from newllm_core.evaluation.contexts import output_files, write_contexts
    from newllm_core.files.names import refuse_source
    from newllm_core.plugins.guard import stdout_to_stderr

    chunks = text_chunks(text, encoding)
    refuse_source(checkpoint, out)
    output_files(out, overwrite=overwrite)
    progress = StderrProgress(given)
    loaded = load(checkpoint, given=given, progress=progress)
    size = text_bytes(located(text), encoding)
    # A plugin may print while it reads.
    with stdout_to_stderr(), progress.task("reading", size, "bytes") as task:
        written = write_contexts(
            loaded,
            chunks,
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
