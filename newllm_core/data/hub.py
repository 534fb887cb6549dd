"""Asking the Hugging Face hub, with one clear error where it cannot be reached."""

import os

from newllm_core.errors import InputError, reason

TIMEOUT_SECONDS = 10


def require_hub(wanted: str, instead: str) -> None:
    """Raise at once where the hub is out of reach.

    Its client would try for half a minute, with a warning for every attempt.

    Args:
        wanted: what is asked for, for the message.
        instead: what the user can do without the hub.

    Raises:
        InputError: offline.
    """
    from huggingface_hub import constants, get_session

    problem = ""
    if constants.HF_HUB_OFFLINE:
        problem = "HF_HUB_OFFLINE is set"
    else:
        try:
            get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
        except Exception as error:  # whichever client the installed hub library uses
            problem = reason(error)
    if problem:
        raise unreachable(wanted, problem, instead)


def unreachable(wanted: str, problem: str, instead: str) -> InputError:
    """Return the error of something on the hub that cannot be had."""
    endpoint = os.environ.get("HF_ENDPOINT", "the Hugging Face hub")
    return InputError(f"cannot get {wanted} from {endpoint} ({problem}): {instead}")
