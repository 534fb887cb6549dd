"""`newllm quickstart`: everything once, on the documentation inside Python."""

import os
import time
from itertools import chain, count
from pathlib import Path
from typing import Annotated, Any

import typer

from newllm_cli.options import JsonOption, Settings, with_settings

PROMPT = "Return the"


@with_settings("run", trains=True)
def quickstart(
    given: Settings,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for everything it makes; must be new.",
            show_default="runs/quickstart, or the next free runs/quickstart-N",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Prepare, train, analyse, give heads, expand, train the heads, generate: in minutes.

    Examples:
        newllm quickstart
    """
    from newllm_cli.output import console, print_json
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render import (
        render_dataset,
        render_language_model,
        render_phase1,
        render_quickstart,
        render_sample,
    )
    from newllm_cli.render_analysis import render_analysis
    from newllm_core.data.prepare import prepare
    from newllm_core.errors import InputError
    from newllm_core.files.names import quoted
    from newllm_core.pipeline import front_door
    from newllm_core.pipeline.commands import check_new_model, refuse_idle
    from newllm_core.plugins.guard import stdout_to_stderr
    from newllm_core.settings import from_file

    began = time.monotonic()
    given.layers.insert(0, from_file("preset:quickstart"))
    config = given.resolve()
    check_new_model(given, config)
    refuse_idle(given, config, "phase2")
    folder = out or _free_folder()
    if os.path.exists(folder):
        raise InputError(f"{folder} exists: choose another --out")
    progress = StderrProgress(given)
    results: dict[str, Any] = {"schema": 1, "folder": str(folder)}

    def stage(number: int, text: str) -> None:
        progress.message(f"[{number}/6] {time.monotonic() - began:.0f} s: {text}")

    def show(name: str, result: dict[str, Any], render: Any, *arguments: Any) -> None:  # noqa: ANN401
        results[name] = result
        if not json:
            render(*arguments, result, console())

    stage(1, f"prepare {config.data.source} (nothing is downloaded)")
    with stdout_to_stderr():  # a plugin may print while it reads
        info = prepare(config, folder / "data", progress=progress)
    show("dataset", info.to_dict(), render_dataset, str(folder / "data"))

    from newllm_cli.commands.phase1 import phase1_summary
    from newllm_cli.commands.phase2 import language_model_summary
    from newllm_core.analysis.analyze import analyze

    common: dict[str, Any] = {"progress": progress, "settings": given}

    stage(2, "phase 1: train the update until contexts settle and stay diverse")
    made = front_door.phase1(data=folder / "data", out=folder / "phase1.safetensors", **common)
    show("phase1", phase1_summary(made), render_phase1)

    stage(3, "analyze the contexts, next to the same model untrained")
    report = analyze(made.checkpoint, checkpoint_path=made.path, given=given, progress=progress)
    show("analysis", report, render_analysis)

    phase2, expand = front_door.phase2, front_door.expand
    steps = (
        ("phase2", "phase2", phase2, "phase 2: train one token head, and the blocks with it"),
        ("expand", "expanded", expand, "expand: clone the head to every block"),
        ("heads", "heads", phase2, "phase 2 for all heads"),
    )
    for number, (name, file, step, text) in enumerate(steps, start=4):
        stage(number, text)
        made = step(made, out=folder / f"{file}.safetensors", **common)
        show(name, language_model_summary(made), render_language_model)

    sample = made.generate(PROMPT, settings=given)
    results |= {"sample": PROMPT + sample, "seconds": time.monotonic() - began}
    if json:
        print_json(results)
    else:
        render_quickstart(results, console())
        render_sample(PROMPT, sample, console())
    progress.message(f"done in {results['seconds']:.0f} s; everything is in {folder}")
    progress.message(f"write with it: newllm generate {quoted(made.path)} --prompt '{PROMPT}'")


def _free_folder() -> Path:
    """Return the first of runs/quickstart, runs/quickstart-2, … that does not exist."""
    later = (f"quickstart-{number}" for number in count(2))
    folders = (Path("runs") / name for name in chain(["quickstart"], later))
    return next(folder for folder in folders if not os.path.exists(folder))
