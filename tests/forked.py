"""The command line in processes of its own, forked from one that has loaded torch already."""

import multiprocessing
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from newllm_cli.__main__ import main

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        *("newllm_cli.app", "newllm_core.pipeline.runs", "newllm_core.analysis.analyze"),
        *("torch._dynamo", "torch.distributed.fsdp", "tests.robustness.runs", __name__),
    ]
)


@dataclass
class Streams:
    """What a process has for its descriptors: paths of files, terminals or named pipes."""

    stdin: str | Path = os.devnull
    stdout: str | Path = os.devnull
    stderr: str | Path = os.devnull
    owns_terminal: bool = False


def start(*arguments, cwd, environment=None, program=main, **streams):
    """Start `newllm`, or another program, with `arguments`; `streams` are fields of `Streams`."""
    arguments, environment = [*map(str, arguments)], os.environ | (environment or {})
    given = (program, arguments, cwd, environment, Streams(**streams))
    process = SERVER.Process(target=_become, args=given)
    process.start()
    return process


def _become(program, arguments, cwd, environment, streams):
    if streams.owns_terminal:
        os.setsid()  # the terminal that is opened next is its own
    flags = 0 if streams.owns_terminal else os.O_NOCTTY
    os.dup2(os.open(streams.stdin, os.O_RDONLY | flags), 0)
    os.dup2(os.open(streams.stdout, os.O_WRONLY | os.O_CREAT | flags, 0o600), 1)
    os.dup2(os.open(streams.stderr, os.O_WRONLY | os.O_CREAT | flags, 0o600), 2)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False, buffering=1)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["newllm", *arguments]
    sys.exit(program())
