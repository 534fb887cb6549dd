"""What takes part in a comparison."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from benchmarks.comparison.tuning import Axes, Setting
from newllm_core.config import RunConfig
from newllm_core.data.prepared import PreparedDataset, TokenSplit
from newllm_core.errors import ConfigError
from newllm_core.runtime.progress import Progress

# Validation text that tuning looks at, in whole documents: a quarter of it cannot tell apart
# settings that differ by .005 bits per byte.
VALIDATION_TOKENS = 131_072


@dataclass(frozen=True)
class Conditions:
    """The same for every model.

    Attributes:
        dataset: prepared, with a test split.
        run: precision and threads.
        parameters: wanted size.
        device: where to compute.
        progress: is told how far training is.
    """

    dataset: PreparedDataset
    run: RunConfig
    parameters: int
    device: torch.device
    progress: Progress

    def tuned_on(self) -> TokenSplit:
        """Cut the validation text that tuning looks at."""
        return beginning(self.dataset.validation, VALIDATION_TOKENS)

    def test(self) -> TokenSplit:
        """Return the text that is reported.

        Raises:
            ConfigError: the data has none.
        """
        test = self.dataset.test
        if test is None:
            raise ConfigError(
                f"{self.dataset.path} has no test split to report: prepare it again with newllm "
                "prepare --test-fraction .05"
            )
        return test


def beginning(split: TokenSplit, tokens: int) -> TokenSplit:
    """Cut whole documents of up to so many tokens, one at least."""
    starts = split.document_starts
    documents = max(1, int(np.searchsorted(starts, tokens, side="right")) - 1)
    sizes = split.document_bytes[:documents]
    return replace(
        split,
        tokens=split.tokens[: int(starts[documents])],
        document_starts=starts[: documents + 1],
        document_bytes=sizes,
        num_bytes=int(sizes.sum()),
    )


class Contestant(Protocol):
    """One row of the table.

    Attributes:
        name: as in `--models`.
        axes: what is tuned, the learning rate first.
        start: where tuning starts.
        speeds: settings that differ in speed, one of each; without what does not matter to it.
        ways: of matrix products that may be taken, the most exact first.
        seeds: whether a seed makes a difference.
    """

    name: str
    axes: Axes
    start: Setting
    speeds: list[Setting]
    ways: tuple[str, ...]
    seeds: bool

    def identity(self, setting: Setting) -> dict[str, Any]:
        """Everything that decides a result beside setting, seed and tokens; its `parameters`."""

    def rate(self, setting: Setting, way: str) -> float:
        """Measure training tokens per second of one core, once."""

    def train(
        self, setting: Setting, seed: int, tokens: int, way: str, *, test: bool
    ) -> dict[str, Any]:
        """Train anew on so many tokens: `validation` and, if asked for, `test` bits per byte."""
