"""`newllm expand`: one head per block."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.commands.phase2 import (
    CheckpointArgument,
    DataOption,
    dataset_of,
    language_model_summary,
)
from newllm_cli.options import JsonOption, OverwriteOption, Settings, default_path, with_settings


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
    from newllm_cli.output import console, print_json
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render import render_language_model
    from newllm_core.files.atomic import refuse_existing

    path = default_path(out, "expanded.safetensors")
    refuse_existing(path, overwrite=overwrite)
    config = given.resolve()

    from newllm_core.checkpoint.format import load
    from newllm_core.pipeline import run_expand
    from newllm_core.runtime.device import prepare_device

    device = prepare_device(config.run)
    progress = StderrProgress()
    loaded = load(checkpoint, device=device, progress=progress)
    expanded = run_expand(
        loaded,
        dataset_of(loaded, data),
        config,
        path,
        overwrite=overwrite,
        device=device,
        progress=progress,
    )
    summary = language_model_summary(path, expanded.results)
    if json:
        print_json(summary)
    else:
        render_language_model(summary, console())
