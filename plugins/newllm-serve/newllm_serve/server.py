"""A socket, a store and a model, until somebody ends it."""

import logging
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import uvicorn

from newllm_core.checkpoint.format import load
from newllm_core.config import Config
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError, reason
from newllm_core.files.lock import exclusive
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.progress import Progress
from newllm_serve.app import make_app
from newllm_serve.limits import Limits
from newllm_serve.service import Service
from newllm_serve.sessions import Sessions

LOCAL = ["127.0.0.1", "localhost", "[::1]"]
EVERYWHERE = ("0.0.0.0", "::")
SECONDS_TO_END = 5
WAITING_CLIENTS = 1024


def run_server(
    config: Config,
    path: Path,
    *,
    host: str,
    names: Sequence[str] = (),
    port: int,
    folder: Path,
    limits: Limits,
    progress: Callable[[], Progress],
    ready: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C or a signal to end.

    Args:
        config: where to compute, and how text is written unless a request says otherwise.
        path: of the checkpoint.
        host: address to listen at.
        names: of the server besides, as a proxy calls it.
        port: 0 takes a free one.
        folder: of sessions.
        limits: how much is taken on.
        progress: makes what is told how the checkpoint is read; it is let go then.
        ready: gets one line once requests are answered.

    Raises:
        InputError: the checkpoint is missing or its head was never trained, the address is taken,
            or another server has the folder.
    """
    device = prepare_device(config.run)
    with _listening(host, port) as listener, exclusive(folder, option="--sessions"):
        checkpoint = load(path, device=device, progress=progress())
        checkpoint.require_trained_head()
        tokenizer = TextTokenizer.from_json(checkpoint.tokenizer_json)
        sessions = Sessions(folder, checkpoint, tokenizer, limits.sessions)
        service = Service(path.stem, checkpoint, tokenizer, config.generation, limits, sessions)
        address = f"[{host}]" if ":" in host else host
        hosts = ["*"] if host in EVERYWHERE else [*LOCAL, address, *names]
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(service, hosts),
                http="httptools",  # h11 cannot answer after a malformed chunk
                log_level="warning",
                access_log=False,
                timeout_graceful_shutdown=SECONDS_TO_END,
            )
        )
        place = f"http://{address}:{listener.getsockname()[1]}"
        kept = f"{len(sessions):,} sessions in {folder}"
        ready(f"{path.stem} at {place}, {kept} (Ctrl-C ends it)")
        # It warns of each write to a client that is gone.
        logging.getLogger("asyncio").setLevel(logging.ERROR)
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=WAITING_CLIENTS)
    except OSError as error:
        raise InputError(
            f"cannot listen at {host}:{port}: {reason(error)}; give another --port or --host"
        ) from error
    return listener
