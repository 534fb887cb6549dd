"""Asking the Hugging Face hub, with one clear error where it cannot be reached."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from newllm_core.errors import InputError, reason

TIMEOUT_SECONDS = 10


@contextmanager
def asking_hub(wanted: str, instead: str, *, is_local: bool = False) -> Iterator[None]:
    """Raise `InputError` where the body fails, and at once where the hub is out of reach.

    Its client would try for half a minute, with a warning for every attempt. `wanted` is what is
    asked for, `instead` what the user can do without the hub; what `is_local` needs no hub.
    """
    from huggingface_hub import constants, get_session

    try:
        if not is_local:
            if constants.HF_HUB_OFFLINE:
                raise OSError("HF_HUB_OFFLINE is set")
            get_session().head(constants.ENDPOINT, timeout=TIMEOUT_SECONDS)
        yield
    except Exception as error:  # whichever client the installed hub library uses
        endpoint = os.environ.get("HF_ENDPOINT", "the Hugging Face hub")
        raise InputError(
            f"cannot get {wanted} from {endpoint} ({reason(error)}): {instead}"
        ) from error
