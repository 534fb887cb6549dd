"""`newllm phase2`: train the token heads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newllm_cli.options import JsonOption, OverwriteOption, ResumeOption, TrackOption, with_settings
from newllm_core.settings import Settings

if TYPE_CHECKING:
    from newllm_core.pipeline.opened import OpenedCheckpoint

CheckpointArgument = Annotated[
    Path, typer.Argument(help="Checkpoint to start from.", metavar="CKPT")
]
DataOption = Annotated[
    Path | None,
    typer.Option(help="Prepared folder.", show_default="the one the checkpoint was trained on"),
]


@with_settings("phase2", "gate", "run", trains=True)
def phase2(
    given: Settings,
    checkpoint: CheckpointArgument,
    data: DataOption = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to write.", show_default="runs/phase2.safetensors"),
    ] = None,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    track: TrackOption = None,
    json: JsonOption = False,
) -> None:
    """Phase 2: train token heads on contexts that passed the gate; the blocks too unless frozen.

    Examples:
        newllm phase2 runs/phase1.safetensors
        newllm phase2 runs/phase1.safetensors --freeze-context --epochs 5
    """
    from newllm_cli.output import show
    from newllm_cli.processes import run_progress
    from newllm_cli.render import render_language_model
    from newllm_core.pipeline import front_door
    from newllm_core.pipeline.commands import is_first_process
    from newllm_core.plugins.guard import stdout_to_stderr

    with stdout_to_stderr():  # a plugin may print while it trains
        made = front_door.phase2(
            checkpoint,
            data=data,
            out=out,
            overwrite=overwrite,
            resume=resume,
            track=track or (),
            progress=run_progress(given),
            settings=given,
        )
    if is_first_process():
        show(language_model_summary(made), render_language_model, json=json)


def language_model_summary(made: "OpenedCheckpoint") -> dict[str, Any]:
    """Return what `phase2` and `expand` end with."""
    return {"schema": 1, "checkpoint": str(made.path), **made.checkpoint.results}
