"""`newllm evaluate`: loss, perplexity, bits per byte and accuracy of every head."""

from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.commands.phase2 import DataOption
from newllm_cli.options import EncodingOption, JsonOption, Settings, with_settings

TrainedArgument = Annotated[
    Path, typer.Argument(help="Checkpoint whose heads were trained.", metavar="CKPT")
]


@with_settings("run")
def evaluate(
    given: Settings,
    checkpoint: TrainedArgument,
    data: DataOption = None,
    text: Annotated[
        Path | None,
        typer.Option(
            help="Text of any length (- is stdin), as one document, instead of --data.",
            metavar="FILE|-",
        ),
    ] = None,
    encoding: EncodingOption = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Only this split, and all of it.",
            metavar="train|validation|test",
            show_default="validation, and the beginning of train",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say how well trained heads predict a text: each head, and all of them together.

    Loss is in nats per token. Bits per byte count the UTF-8 bytes of the text itself, whatever the
    tokenizer makes of them; bytes that it loses count with 8 bits each. Perplexity per word comes
    twice: with line ends as words, as WikiText is published, and with the words between white
    space alone.

    Examples:
        newllm evaluate runs/phase2.safetensors
        newllm evaluate runs/phase2.safetensors --text book.txt --json
        newllm evaluate runs/phase2.safetensors --split test
    """
    from newllm_cli.output import show
    from newllm_cli.progress import StderrProgress
    from newllm_cli.render import render_language_model
    from newllm_core.errors import ConfigError

    if data is not None and text is not None:
        raise ConfigError("--data and --text exclude each other: give one of them")
    if split is not None and text is not None:
        raise ConfigError("--split and --text exclude each other: a text is not divided")
    if encoding is not None and text is None:
        raise ConfigError("--encoding is that of --text: give one, or leave it out")
    given.resolve()  # a mistyped setting is reported before torch is loaded

    from newllm_core.checkpoint.format import load
    from newllm_core.data.sources.decoding import UTF8, known_encoding
    from newllm_core.data.sources.files import located
    from newllm_core.pipeline.commands import dataset_of
    from newllm_core.pipeline.trained import evaluation_config, run_evaluate
    from newllm_core.plugins.guard import stdout_to_stderr

    known_encoding(encoding or UTF8, "--encoding")
    progress = StderrProgress(given)
    loaded = load(checkpoint, given=given, progress=progress)
    loaded.require_trained_head()
    config = evaluation_config(given, loaded)
    target = located(text) if text else dataset_of(loaded, data)
    source = {"file": str(target)} if isinstance(target, Path) else {"data": str(target.path)}
    with stdout_to_stderr():  # a plugin may print while it reads
        figures = run_evaluate(
            loaded,
            target,
            config,
            progress=progress,
            split=split,
            encoding=encoding or UTF8,
        )
    summary = {"schema": 1, "checkpoint": str(checkpoint), **source, **figures}
    show(summary, render_language_model, json=json)
