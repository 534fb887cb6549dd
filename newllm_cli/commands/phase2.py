"""`newllm phase2`: train the token heads."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newllm_cli.options import (
    JsonOption,
    OverwriteOption,
    ResumeOption,
    Settings,
    TensorBoardOption,
    default_path,
    with_settings,
)

if TYPE_CHECKING:
    from newllm_core.checkpoint.format import Checkpoint
    from newllm_core.data.prepared import PreparedDataset

CheckpointArgument = Annotated[Path, typer.Argument(help="Checkpoint to start from.")]
DataOption = Annotated[
    Path | None,
    typer.Option(help="Prepared folder.", show_default="the one the checkpoint was trained on"),
]


@with_settings("phase2", "gate", "run")
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
    tensorboard: TensorBoardOption = False,
    json: JsonOption = False,
) -> None:
    """Train token heads on contexts that passed the gate; the blocks too unless frozen.

    Examples:
        newllm phase2 runs/phase1.safetensors

        newllm phase2 runs/phase1.safetensors --freeze-context --epochs 5
    """
    from newllm_cli.output import console, print_json
    from newllm_cli.processes import is_first_process, run_progress
    from newllm_cli.render import render_language_model
    from newllm_core.files.atomic import refuse_existing

    path = default_path(out, "phase2.safetensors")
    refuse_existing(path, overwrite=overwrite or resume)
    if tensorboard:
        from newllm_core.runtime.tensorboard import require_tensorboard

        require_tensorboard()
    given.resolve()  # a mistyped setting is reported before torch is loaded

    from newllm_core.checkpoint.format import load
    from newllm_core.parallel.collectives import process_group
    from newllm_core.pipeline import check_unchanged, checkpoint_layer, run_phase2
    from newllm_core.runtime.device import prepare_device

    progress = run_progress()
    loaded = load(checkpoint, progress=progress)
    check_unchanged(loaded, list(given.layers))
    config = given.resolve(checkpoint_layer(loaded))
    device = prepare_device(config.run)
    loaded.model.to(device)
    with process_group(device):
        trained = run_phase2(
            loaded,
            dataset_of(loaded, data),
            config,
            path,
            overwrite=overwrite,
            device=device,
            progress=progress,
            tensorboard=tensorboard,
            resume=resume,
        )
    if not is_first_process():
        return
    summary = language_model_summary(path, trained.results)
    if json:
        print_json(summary)
    else:
        render_language_model(summary, console())


def dataset_of(checkpoint: "Checkpoint", data: Path | None) -> "PreparedDataset":
    """The dataset given, or the one that `checkpoint` was trained on."""
    from newllm_core.data.prepared import open_dataset
    from newllm_core.errors import InputError

    saved = checkpoint.provenance.get("dataset_path", "")
    if data is None and not os.path.isdir(saved):
        raise InputError(f"the checkpoint's dataset {saved} is gone: pass --data DIR")
    return open_dataset(data or saved)


def language_model_summary(path: Path, results: dict[str, Any]) -> dict[str, Any]:
    """What `phase2` and `expand` end with."""
    return {"schema": 1, "checkpoint": str(path), **results}
