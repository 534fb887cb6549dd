"""`newllm expand`: one head per block."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.commands.phase2 import CheckpointArgument, DataOption, language_model_summary
from newllm_cli.options import OF_TRAINING, JsonOption, OverwriteOption, Settings, with_settings


@with_settings("run", without=OF_TRAINING)
def expand(
    given: Settings,
    checkpoint: CheckpointArgument,
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to write.", show_default="runs/expanded.safetensors"),
    ] = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Clone the trained token head to every block; train them with phase2 afterwards.

    Examples:
        newllm expand runs/phase2.safetensors
        newllm phase2 runs/expanded.safetensors --out runs/heads.safetensors
    """
    from newllm_cli.output import show
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render import render_language_model
    from newllm_core.pipeline import commands
    from newllm_core.plugins.guard import stdout_to_stderr

    with stdout_to_stderr():  # a plugin may print while it is measured
        path, expanded = commands.expand(
            given, checkpoint, data, out, overwrite=overwrite, progress=StderrProgress(given)
        )
    summary = language_model_summary(path, expanded.results)
    show(summary, render_language_model, json=json)
