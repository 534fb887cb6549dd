"""Context-vector language models: model, training, analysis. Importing this loads no torch.

`open_checkpoint`, `prepare`, `phase1`, `phase2`, `expand` and `use_plugin_file` are looked up when
they are first used; docs/PYTHON.md shows them at work.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newllm_core.pipeline.front_door import expand, phase1, phase2, prepare
    from newllm_core.pipeline.opened import OpenedCheckpoint, open_checkpoint
    from newllm_core.plugins.files import use_file as use_plugin_file

    __version__: str

__all__ = [
    "OpenedCheckpoint",
    "__version__",
    "expand",
    "open_checkpoint",
    "phase1",
    "phase2",
    "prepare",
    "use_plugin_file",
]

# A waiting thread that spins takes the core from whoever works on it. One that sleeps at once wakes
# too late for the small operations of a recurrence. Turns of waiting, some microseconds in all;
# read when torch is loaded, so import newllm_core before it.
os.environ.setdefault("GOMP_SPINCOUNT", "2000")


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the protocol of modules
    """Look up what is in `__all__`; even reading `__version__` is slow beside `--help`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from newllm_core.runtime.version import newllm_version

        return newllm_version()
    if name == "use_plugin_file":
        from newllm_core.plugins.files import use_file

        return use_file
    if name in ("open_checkpoint", "OpenedCheckpoint"):
        from newllm_core.pipeline import opened

        return getattr(opened, name)
    from newllm_core.pipeline import front_door

    return getattr(front_door, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
