"""Measurements: `python -m benchmarks.NAME`."""

import newllm_core  # noqa: F401 - says how threads wait, which torch reads when it is loaded
