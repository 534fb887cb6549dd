"""The command `serve`, registered in the group `newllm.commands`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.commands.evaluate import TrainedArgument
from newllm_cli.options import Settings, with_settings
from newllm_serve.limits import Limits


@with_settings("generation", "run", without=("seed", "precision"))
def serve(
    given: Settings,
    checkpoint: TrainedArgument,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets everybody in.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name by which a proxy calls it (repeatable).", metavar="NAME"),
    ] = None,
    port: Annotated[
        int, typer.Option(help="0 takes a free one.", metavar="INTEGER", min=0, max=65535)
    ] = 8000,
    sessions: Annotated[
        Path | None,
        typer.Option(
            help="Folder of conversations.", show_default="NAME.sessions at the checkpoint"
        ),
    ] = None,
    max_sessions: Annotated[
        int, typer.Option(help="Conversations kept.", metavar="INTEGER", min=1)
    ] = Limits.sessions,
    max_texts: Annotated[
        int, typer.Option(help="Texts at the same time.", metavar="INTEGER", min=1)
    ] = Limits.texts,
    max_bytes: Annotated[
        int, typer.Option(help="Bytes of one request.", metavar="INTEGER", min=1)
    ] = Limits.body_bytes,
    most_tokens: Annotated[
        int, typer.Option(help="Tokens that one request may ask for.", metavar="INTEGER", min=1)
    ] = Limits.tokens,
    max_seconds: Annotated[
        float, typer.Option(help="Seconds until a reply ends.", metavar="NUMBER", min=0.001)
    ] = Limits.seconds,
) -> None:
    """Serve a model: OpenAI's interface at /v1, and a page to talk at /.

    A request with "session": "NAME" goes on where the last one of that name ended. Settings of
    generation are the defaults of requests.

    Examples:
        newllm serve runs/phase2.safetensors

        newllm serve runs/phase2.safetensors --port 0 --temperature 0.5
    """
    limits = Limits(
        body_bytes=max_bytes,
        tokens=most_tokens,
        texts=max_texts,
        seconds=max_seconds,
        sessions=max_sessions,
    )
    from newllm_cli.progress import StderrProgress
    from newllm_serve.server import run_server

    run_server(
        given.resolve(),
        checkpoint,
        host=host,
        names=allow_host or [],
        port=port,
        folder=sessions or checkpoint.with_suffix(".sessions"),
        limits=limits,
        progress=lambda: StderrProgress(given),
        ready=lambda text: print(text, file=sys.stderr, flush=True),
    )
