"""`newllm phase1`: train the recurrence."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from newllm_cli.options import JsonOption, OverwriteOption, ResumeOption, TrackOption, with_settings
from newllm_core.settings import Settings

if TYPE_CHECKING:
    from newllm_core.pipeline.opened import OpenedCheckpoint


@with_settings("phase1", "model", "run", trains=True)
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
    track: TrackOption = None,
    require_healthy: Annotated[
        bool,
        typer.Option(
            "--require-healthy", help="End with exit code 6 if phase 2 would refuse what was made."
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Phase 1: train the update of the context until contexts settle and stay diverse.

    Examples:
        newllm phase1
        newllm phase1 --reg ema-variance --max-tokens 200000
        newllm phase1 --config preset:cvfp-768 --data data --out runs/big.safetensors
        newllm phase1 --max-iterations 0 --out runs/control.safetensors
        torchrun --standalone --nproc-per-node 2 -m newllm_cli phase1 --data data
        newllm phase1 --cell mogrifier --set cell.rounds=2 --objective cvfp
        newllm phase1 --plugin spread_out.py --reg spread-out --set regularizer.margin=0.5
    """
    from newllm_cli.output import show
    from newllm_cli.processes import run_progress
    from newllm_cli.render import render_phase1
    from newllm_core.errors import GateRefused
    from newllm_core.pipeline import front_door
    from newllm_core.pipeline.commands import is_first_process
    from newllm_core.plugins.guard import stdout_to_stderr

    with stdout_to_stderr():  # a plugin may print while it trains
        made = front_door.phase1(
            data=data,
            out=out,
            overwrite=overwrite,
            resume=resume,
            track=track or (),
            progress=run_progress(given),
            settings=given,
        )
    if not is_first_process():
        return
    summary = phase1_summary(made)
    show(summary, render_phase1, json=json)
    if require_healthy and not summary["verdict"]["succeeded"]:
        raise GateRefused(f"phase 1 failed: {summary['verdict']['reason']}")


def phase1_summary(made: "OpenedCheckpoint") -> dict[str, Any]:
    """Return what `phase1` ends with."""
    from newllm_core.analysis.quality_gate import phase1_verdict
    from newllm_core.analysis.report.figures import num_iterations

    checkpoint = made.checkpoint
    return {
        "schema": 1,
        "checkpoint": str(made.path),
        "iterations": num_iterations(checkpoint.history),
        "last_iteration": checkpoint.history[-1] if checkpoint.history else None,
        "vacuous_terms": checkpoint.vacuous_terms,
        "gate": checkpoint.gate,
        "verdict": phase1_verdict(checkpoint),
    }
