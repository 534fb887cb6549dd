"""The command `serve`, registered in the group `newllm.commands`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from newllm_cli.commands.evaluate import TrainedArgument
from newllm_cli.options import Settings, number_option, with_settings
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
    port: Annotated[int, number_option("--port", "0 takes a free one.", low=0, high=65535)] = 8000,
    sessions: Annotated[
        Path | None,
        typer.Option(
            help="Folder of conversations.", show_default="NAME.sessions at the checkpoint"
        ),
    ] = None,
    max_sessions: Annotated[
        int, number_option("--max-sessions", "Conversations kept.")
    ] = Limits.sessions,
    max_texts: Annotated[
        int, number_option("--max-texts", "Texts at the same time.")
    ] = Limits.texts,
    max_bytes: Annotated[
        int, number_option("--max-bytes", "Bytes of one request.")
    ] = Limits.body_bytes,
    most_tokens: Annotated[
        int, number_option("--most-tokens", "Tokens that one request may ask for.")
    ] = Limits.tokens,
    max_seconds: Annotated[
        float, number_option("--max-seconds", "Seconds until a reply ends.", float)
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
