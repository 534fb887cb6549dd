"""`newllm bench`: how fast Phase 1 is here."""

from typing import Annotated

import typer

from newllm_cli.options import JsonOption, Settings, with_settings
from newllm_core.settings import PRESET_PREFIX, Layer, from_file

ENGINES = ("naive", "online", "streams", "parallel")
PRECISIONS = ("float32", "bfloat16")
PRESET, REG = "cvfp-768", "ema-variance"
# What rows differ in, and what all have alike so that they compute the same.
FIXED = {"phase1": ("engine", "objective", "start"), "run": ("precision",)}


# Every row says its own precision.
@with_settings("run", without=("seed", "precision"))
def bench(
    given: Settings,
    preset: Annotated[
        str | None,
        typer.Option(help="Model to measure, unless --config says it.", show_default=PRESET),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(help="Only these rows; repeatable.", metavar="|".join(ENGINES)),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option(help="Only these rows; repeatable.", metavar="|".join(PRECISIONS)),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Tokens per step (parallel).", metavar="INTEGER", min=1),
    ] = None,
    reg: Annotated[
        str | None, typer.Option(help="Regularizer of every row.", show_default=REG)
    ] = None,
    rounds: Annotated[
        int, typer.Option(help="Rounds; medians are taken.", metavar="INTEGER", min=1)
    ] = 9,
    cell: Annotated[
        str | None, typer.Option(help="Cell of every row.", show_default="the preset's")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure Phase 1 beside the published per-token loop and the machine's own peak.

    Every row has the published objective, cvfp.

    Examples:
        newllm bench
        newllm bench --preset tiny --engine parallel --engine naive --json
        newllm bench --preset tiny --cell gru --kernels off
    """
    from newllm_cli.output import show
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render import render_bench
    from newllm_core.errors import ConfigError

    chosen = {"--engine": (engine, ENGINES), "--precision": (precision, PRECISIONS)}
    for name, (values, known) in chosen.items():
        for value in values or ():
            if value not in known:
                raise ConfigError(f"{name} {value!r}: choose from {', '.join(known)}")
    fixed = FIXED | {"objective": tuple(given.flags.get("objective", {}))}
    for section, keys in fixed.items():
        for key in keys:
            if key in given.flags.get(section, {}):
                raise ConfigError(
                    f"{section}.{key}: rows have --engine and --precision, and all of them the "
                    "objective cvfp from a zero start; leave it out"
                )
    if preset is not None and given.file is not None:
        raise ConfigError("--preset and --config both say what is measured: leave one out")
    file = given.file or PRESET_PREFIX + (preset or PRESET)
    measured: list[Layer] = [from_file(file)]
    if reg is not None:
        given.add({"phase1": {"reg": reg}})
    if batch is not None:
        given.add({"phase1": {"batch_tokens": batch}})
        measured.append({"phase1": {"window_tokens": 64 * batch}})
    if cell is not None:
        given.add({"model": {"cell": cell}})
    given.layers[:-1] = measured
    config = given.resolve({"phase1": {"reg": REG}})

    from newllm_core.benchmark import benchmark
    from newllm_core.plugins.guard import stdout_to_stderr
    from newllm_core.runtime.device import prepare_device

    with stdout_to_stderr():  # a plugin may print while it trains
        result = benchmark(
            config,
            engines=engine or ENGINES,
            precisions=precision or PRECISIONS,
            rounds=rounds,
            device=prepare_device(config.run),
            progress=StderrProgress(given),
        )
    report = {"schema": 1, "preset": file.removeprefix(PRESET_PREFIX), **result}
    show(report, render_bench, json=json)
