"""One command in several processes (`torchrun`): one speaks for all that would say the same."""

import os
import shlex
import sys
from datetime import timedelta

from newllm_core.errors import ProcessLost, UserError
from newllm_core.pipeline.commands import is_first_process
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.settings import Settings

RESUMABLE = ("phase1", "phase2")
# Torchrun listens before it starts anybody: only its own end keeps it from answering.
LONGEST_ASKED = timedelta(seconds=20)


def speaks(error: UserError) -> bool:
    """Say whether this process reports `error`: of those that say the same, the first that asks.

    Of a lost process, which may be the first, whoever is left says the same in words of its own.
    """
    lost = isinstance(error, ProcessLost)
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return lost or is_first_process()
    from torch.distributed import TCPStore

    place, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    try:
        said = TCPStore(place, port, is_master=False, timeout=LONGEST_ASKED)
        restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        is_first_to_ask = said.add(f"newllm/{restarts}/{'lost' if lost else error}", 1) == 1
        # The first process alone knows that it has saved the state.
        return is_first_to_ask or (lost and is_first_process())
    except RuntimeError:  # torchrun is gone
        return lost or is_first_process()


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
