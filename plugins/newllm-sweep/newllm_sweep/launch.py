"""More processes for a sweep: here, or as jobs of a cluster."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from newllm_core.errors import ConfigError, InputError


def run_workers(command: list[str], count: int) -> None:
    """Run `newllm` with `command` so many times at once, until all have ended.

    Raises:
        InputError: one failed; it has said why.
    """
    run = [sys.executable, "-m", "newllm_cli", *command]
    started = [subprocess.Popen(run, stdout=subprocess.DEVNULL) for _ in range(count)]
    try:
        codes = [process.wait() for process in started]
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
                process.wait()
    if any(codes):
        raise InputError("a process of the sweep failed, see above; start it again to go on")


def submit(
    command: list[str],
    folder: Path,
    count: int,
    parameters: Mapping[str, Any],
    *,
    cluster: str = "slurm",
) -> list[str]:
    """Submit so many jobs that run `newllm` with `command`; return their names.

    Args:
        command: of newllm.
        folder: for scripts and logs.
        count: of jobs.
        parameters: of submitit, such as timeout_min or slurm_partition.
        cluster: as submitit calls it.

    Raises:
        ConfigError: submitit is missing, or refuses a parameter.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            "--executor slurm needs submitit: pip install 'newllm-sweep[slurm]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(**parameters)
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"submitit refuses [slurm]: {error}") from error
    job = submitit.helpers.CommandFunction([sys.executable, "-m", "newllm_cli", *command])
    return [str(executor.submit(job).job_id) for _ in range(count)]
