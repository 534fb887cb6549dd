"""Context-vector language models: model, training, analysis. Importing this loads no torch."""

import os
from typing import Any

# A waiting thread that spins takes the core from whoever works on it: from another process, and
# from this one's own helper threads. Read when torch is loaded, so import newllm_core before it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the protocol of modules
    """`__version__`, looked up when asked for: reading metadata is slow beside `--help`."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("newllm")
    except PackageNotFoundError:  # running from a source tree that was never installed
        return "0.0.0"
