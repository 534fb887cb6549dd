"""`newllm compare`: checkpoints side by side."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.foreign import EmbeddingOption, ForeignOption, TokensOption
from newllm_cli.options import HtmlOption, JsonOption, OverwriteOption, PngOption, with_settings
from newllm_core.checkpoint.kept import OF_PROBES
from newllm_core.settings import Settings


@with_settings("analysis", "run", without=OF_PROBES)
def compare(
    given: Settings,
    checkpoints: Annotated[
        list[Path],
        typer.Argument(help="Checkpoints, or somebody else's networks.", metavar="CKPT"),
    ],
    kind: ForeignOption = None,
    embedding: EmbeddingOption = None,
    tokens: TokensOption = None,
    html: HtmlOption = None,
    png: PngOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Say how checkpoints differ: in their settings, their health and as language models.

    Examples:
        newllm compare runs/a.safetensors runs/b.safetensors
        newllm compare runs/*.safetensors --html compare.html
        newllm compare runs/a.safetensors mamba-folder --tokens book.txt
    """
    from newllm_cli.output import show
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render_compare import render_compare
    from newllm_cli.reports import check_outputs, write_outputs
    from newllm_core.analysis.report.compare_page import compare_page, comparison_curves

    progress = StderrProgress(given)
    check_outputs(html, png, overwrite=overwrite)

    from newllm_core.analysis import compare as comparisons
    from newllm_core.plugins.guard import stdout_to_stderr

    with stdout_to_stderr():  # a plugin may print while it reads
        report = comparisons.compare(
            checkpoints,
            given=given,
            progress=progress,
            tokens=tokens,
            kind=kind,
            embedding=embedding,
        )
    show(report, render_compare, json=json)
    write_outputs(
        html, png, partial(compare_page, report), partial(comparison_curves, report), progress
    )
