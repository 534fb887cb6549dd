"""`newllm analyze`: what a checkpoint's memory is worth."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.foreign import (
    EmbeddingOption,
    ForeignOption,
    TokensOption,
    is_foreign,
    named_or_step_file,
    refuse_contradiction,
)
from newllm_cli.options import HtmlOption, JsonOption, OverwriteOption, PngOption, with_settings
from newllm_core.checkpoint.kept import OF_PROBES, require_probes
from newllm_core.settings import Settings


@with_settings("analysis", "run", without=OF_PROBES)
def analyze(
    given: Settings,
    checkpoint: Annotated[
        Path | None,
        typer.Argument(
            help="Checkpoint, any matrix file with --tensor, or somebody else's network.",
            metavar="FILE",
        ),
    ] = None,
    tensor: Annotated[
        str | None,
        typer.Option(help="Look at this matrix or vector of any safetensors file instead."),
    ] = None,
    kind: ForeignOption = None,
    embedding: EmbeddingOption = None,
    tokens: TokensOption = None,
    history: Annotated[
        str, typer.Option(help="Iterations of Phase 1 that are listed.", metavar="some|all")
    ] = "some",
    html: HtmlOption = None,
    png: PngOption = None,
    overwrite: OverwriteOption = False,
    json: JsonOption = False,
) -> None:
    """Say whether contexts are diverse, settled and used, next to the same model untrained.

    Examples:
        newllm analyze runs/phase1.safetensors
        newllm analyze runs/phase1.safetensors --json > report.json
        newllm analyze runs/phase1.safetensors --html report.html --png charts
        newllm analyze model.safetensors --tensor embeddings.word_embeddings.weight
        newllm analyze gru.safetensors --as gru --embedding embed.weight --tokens ids.npy
        newllm analyze rwkv-folder --tokens book.txt
        newllm analyze --plugin my_step.py --tokens ids.npy
    """
    from newllm_cli.output import show
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render_analysis import render_analysis, render_matrix
    from newllm_cli.reports import check_outputs, write_outputs
    from newllm_core.analysis.report.analysis_page import analysis_page, matrix_charts, matrix_page
    from newllm_core.analysis.report.charts import analysis_charts
    from newllm_core.errors import ConfigError
    from newllm_core.plugins.guard import stdout_to_stderr

    if history not in ("some", "all"):
        raise ConfigError(f"--history {history}: choose some or all")
    is_matrix = tensor is not None or (checkpoint is not None and checkpoint.suffix == ".npy")
    if is_matrix and (kind or embedding or tokens):
        what = "--tensor looks at one" if tensor is not None else f"{checkpoint} is a"
        raise ConfigError(f"{what} matrix: leave out --as, --embedding and --tokens")
    progress = StderrProgress(given)
    config = given.resolve()
    check_outputs(html, png, overwrite=overwrite)
    checkpoint = named_or_step_file(checkpoint)
    refuse_contradiction(checkpoint, kind, embedding)
    foreign = is_foreign(checkpoint, kind, embedding, tokens)
    render: Callable[..., object] = partial(render_analysis, whole_history=history == "all")
    page, charts = analysis_page, analysis_charts
    with stdout_to_stderr():  # a plugin may print while it reads
        if is_matrix:
            from newllm_core.analysis.matrix import analyze_matrix

            render, page, charts = render_matrix, matrix_page, matrix_charts
            report = analyze_matrix(
                checkpoint, tensor, config=config.analysis, seed=config.run.seed, progress=progress
            )
        elif foreign:
            from newllm_core.analysis.foreign.opening import examine_file
            from newllm_core.runtime.device import prepare_device

            report = examine_file(
                checkpoint,
                tokens or [],
                kind=kind,
                embedding=embedding,
                config=config,
                seed=config.run.seed,
                device=prepare_device(config.run),
                progress=progress,
            )
        else:
            from newllm_core.analysis.analyze import analyze as analyze_checkpoint
            from newllm_core.checkpoint.format import load

            loaded = load(checkpoint, given=given, progress=progress)
            require_probes(given, loaded.config)
            report = analyze_checkpoint(
                loaded,
                checkpoint_path=checkpoint,
                given=given,
                progress=progress,
            )
    show(report, render, json=json)
    write_outputs(html, png, partial(page, report), partial(charts, report), progress)
