"""The command `sweep`, registered in the group `newllm.commands`."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.options import HtmlOption, JsonOption, OverwriteOption


def sweep(
    plan_file: Annotated[Path, typer.Argument(help="What is tried.", metavar="FILE.toml")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of all trials; those in it count.", show_default="runs/FILE"),
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes that run trials.", metavar="INTEGER", min=1)
    ] = 1,
    executor: Annotated[
        str, typer.Option(help="Where they run: local, or slurm (extra: slurm).")
    ] = "local",
    html: HtmlOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Run many trials of other settings each, and say which are best.

    Start it as often as you like, on every machine that sees the folder: trials are shared. One
    whose process was killed is taken up by another where it was.

    Examples:
        newllm sweep memory.toml

        newllm sweep memory.toml --workers 2 --html memory.html

        newllm sweep memory.toml --executor slurm --workers 8
    """
    from newllm_cli.output import console, print_json
    from newllm_cli.progress import StderrProgress
    from newllm_cli.reports import check_outputs, write_outputs
    from newllm_core.errors import ConfigError
    from newllm_sweep.launch import run_workers, submit
    from newllm_sweep.plan import read_plan
    from newllm_sweep.report import fill_table, sweep_page, sweep_report, write_best
    from newllm_sweep.study import Trials
    from newllm_sweep.worker import work

    if executor not in ("local", "slurm"):
        raise ConfigError(f"--executor is {executor!r}: local or slurm")
    check_outputs(html, None, overwrite=overwrite)
    plan = read_plan(plan_file)
    folder = out or Path("runs") / plan_file.stem
    progress = StderrProgress()
    trials = Trials(plan, folder)
    command = ["sweep", str(plan_file), "--out", str(folder), "--json"]
    if executor == "slurm":
        names = submit(command, folder / "jobs", workers, plan.slurm)
        progress.message(f"submitted {', '.join(names)}; newllm sweep {plan_file} shows the result")
        return
    if workers > 1:
        run_workers(command, workers)
    work(plan, trials, progress)
    report = sweep_report(plan, trials)
    for path in write_best(plan, trials):
        progress.message(f"wrote {path}")
    write_outputs(html, None, lambda: sweep_page(report, plan), list, progress)
    if json:
        print_json(report)
    else:
        fill_table(report, plan, console())
