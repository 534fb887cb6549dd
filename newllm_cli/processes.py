"""One command in several processes (`torchrun`): the first one speaks for all."""

import os
import shlex
import sys

from newllm_core.errors import ProcessLost, UserError
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.settings import Settings

RESUMABLE = ("phase1", "phase2")


def is_first_process() -> bool:
    """Say whether this process prints."""
    return int(os.environ.get("RANK", "0")) == 0


def speaks(error: UserError) -> bool:
    """Say whether this process reports `error`; another one does where the first is gone."""
    return is_first_process() or (isinstance(error, ProcessLost) and error.speaks)


def run_progress(given: Settings) -> Progress:
    """Return progress of a run, shown by the first process only."""
    from newllm_cli.progress import StderrProgress

    return StderrProgress(given) if is_first_process() else Silent()


def how_to_continue() -> str | None:
    """Return what to say after an interrupted run; None where there is none."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--resume"]
    if arguments and arguments[0] == "quickstart":
        return "quickstart itself cannot go on: it begins anew, in a folder that does not exist"
    if not arguments or arguments[0] not in RESUMABLE:
        return None
    starter = ["newllm"]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        count = os.environ.get("LOCAL_WORLD_SIZE", "1")
        starter = ["torchrun", "--standalone", f"--nproc-per-node={count}", "-m", "newllm_cli"]
    return "to continue: " + shlex.join([*starter, *arguments, "--resume"])
