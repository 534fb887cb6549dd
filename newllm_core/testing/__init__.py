"""Conformance kit: call these from the tests of a plugin; a failure says what to change."""

from newllm_core.plugins.guard import ConformanceError
from newllm_core.testing.cell import check_cell
from newllm_core.testing.data_source import check_data_source
from newllm_core.testing.objective import check_objective
from newllm_core.testing.regularizer import check_regularizer

__all__ = [
    "ConformanceError",
    "check_cell",
    "check_data_source",
    "check_objective",
    "check_regularizer",
]
