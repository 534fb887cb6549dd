"""`newllm expand`: one head per block."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.commands.phase2 import CheckpointArgument, DataOption, language_model_summary
from newllm_cli.options import JsonOption, OverwriteOption, Settings, with_settings


@with_settings("run")
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
    from newllm_core.pipeline import front_door
    from newllm_core.plugins.guard import stdout_to_stderr

    with stdout_to_stderr():  # a plugin may print while it is measured
        made = front_door.expand(
            checkpoint,
            data=data,
            out=out,
            overwrite=overwrite,
            progress=StderrProgress(given),
            settings=given,
        )
    show(language_model_summary(made), render_language_model, json=json)
