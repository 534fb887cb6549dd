"""What a kind of foreign network is: a class that opens its files.

To add one, extend `Foreign` and register it as an entry point of `newllm.recurrences`; its name is
what `newllm analyze --as` takes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from newllm_core.analysis.stepped import Step
from newllm_core.config.option import NoOptions


@dataclass(frozen=True)
class Network:
    """An opened network.

    Attributes:
        step: see `newllm_core.analysis.examine`, as `start` and `control`.
        start: the state before any token, batch one.
        control: the step of the same network untrained.
        parameters: how many it has; 0 if that is not known.
        vocab_size: ids are below it; None if any may be read.
        encode: turns a text into token ids, if it has a tokenizer.
        text: shows a token.
        values: numbers that ids stand for [V, F], where inputs are no words.
    """

    step: Step
    start: Any
    control: Step | None = None
    parameters: int = 0
    vocab_size: int | None = None
    encode: Callable[[str], list[int]] | None = None
    text: Callable[[int], str] | None = None
    values: Tensor | None = None


class Foreign(ABC):
    """A kind of network in files."""

    Options: ClassVar[type[Any]] = NoOptions

    @abstractmethod
    def open(
        self, path: Path, *, embedding: str | None, seed: int, device: torch.device
    ) -> Network:
        """Open a network.

        Args:
            path: its file or folder.
            embedding: the tensor that says what token ids stand for, where a file has several.
            seed: of the untrained twin.
            device: where it computes.

        Raises:
            InputError: it cannot be read, or is no network of this kind.
        """
