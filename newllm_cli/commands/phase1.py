"""`newllm phase1`: train the recurrence."""

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

DEFAULT_DATA = Path("runs") / "data"


@with_settings("phase1", "model", "run")
def phase1(
    given: Settings,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Prepared folder; the default one is made if it is not there.",
            show_default="runs/data",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Checkpoint to write.", show_default="runs/phase1.safetensors"),
    ] = None,
    overwrite: OverwriteOption = False,
    resume: ResumeOption = False,
    tensorboard: TensorBoardOption = False,
    json: JsonOption = False,
) -> None:
    """Train the update until contexts settle and stay diverse.

    Examples:
        newllm phase1

        newllm phase1 --reg ema-variance --max-tokens 200000

        newllm phase1 --config preset:cvfp-768 --data data --out runs/big.safetensors

        newllm phase1 --max-iterations 0 --out runs/control.safetensors

        torchrun --standalone --nproc-per-node 2 -m newllm_cli phase1 --data data

        newllm phase1 --cell mogrifier --set cell.rounds=2 --objective cvfp

        newllm phase1 --plugin spread_out.py --reg spread-out --set regularizer.margin=0.5
    """
    from newllm_cli.commands.prepare import prepare_dataset
    from newllm_cli.output import console, print_json
    from newllm_cli.processes import is_first_process, run_progress
    from newllm_cli.render import render_phase1
    from newllm_core.files.atomic import refuse_existing
    from newllm_core.plugins.registry import CELLS, OBJECTIVES, REGULARIZERS

    config = given.resolve()
    path = default_path(out, "phase1.safetensors")
    refuse_existing(path, overwrite=overwrite or resume)
    # A mistyped name is reported before data is prepared.
    CELLS.find(config.model.cell)
    OBJECTIVES.find(config.phase1.objective)
    REGULARIZERS.find(config.phase1.reg)
    if tensorboard:
        from newllm_core.runtime.tensorboard import require_tensorboard

        require_tensorboard()
    progress = run_progress()
    if data is None and not DEFAULT_DATA.exists() and is_first_process():
        progress.message(
            f"no prepared data yet: preparing {config.data.source} into {DEFAULT_DATA} first"
        )
        prepare_dataset(config, DEFAULT_DATA, overwrite=False, progress=progress)

    from newllm_core.data.prepared import open_dataset
    from newllm_core.parallel.collectives import process_group
    from newllm_core.pipeline import run_phase1
    from newllm_core.plugins.guard import stdout_to_stderr
    from newllm_core.runtime.device import prepare_device

    device = prepare_device(config.run)
    with process_group(device), stdout_to_stderr():  # a plugin may print while it trains
        checkpoint = run_phase1(
            config,
            open_dataset(data or DEFAULT_DATA),
            path,
            overwrite=overwrite,
            device=device,
            progress=progress,
            tensorboard=tensorboard,
            resume=resume,
        )
    if not is_first_process():
        return
    summary = phase1_summary(path, checkpoint)
    if json:
        print_json(summary)
    else:
        render_phase1(summary, console())


def phase1_summary(path: Path, checkpoint: "Checkpoint") -> dict[str, Any]:
    """What `phase1` ends with."""
    return {
        "schema": 1,
        "checkpoint": str(path),
        "iterations": len(checkpoint.history),
        "last_iteration": checkpoint.history[-1] if checkpoint.history else None,
        "vacuous_terms": checkpoint.vacuous_terms,
        "gate": checkpoint.gate,
    }
