"""What contexts are like: its sections, thresholds and verdicts, and the whole report.

`analyze.analyze` looks at a checkpoint, `examine` at any recurrent network, `matrix.analyze_matrix`
at any matrix in a file and `examine_states` at one in memory. Nothing here knows how a model is
trained.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from newllm_core.analysis.analyze import examine
    from newllm_core.analysis.matrix import examine_states

__all__ = ["examine", "examine_states"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the protocol of modules
    """Look up what is in `__all__`: criteria can be read without loading torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "analyze" if name == "examine" else "matrix"
    return getattr(import_module(f"{__name__}.{module}"), name)
