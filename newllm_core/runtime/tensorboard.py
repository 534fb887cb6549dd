"""The figures of a run as TensorBoard events, beside its checkpoint: what the run log holds."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from newllm_core.errors import ConfigError, InputError

# What an event counts its lines by; others are counted from 1.
STEP_KEYS = ("step", "epoch")


def events_folder(checkpoint: Path) -> Path:
    """Where the events of `checkpoint` are: `tensorboard --logdir` shows this or any parent."""
    return checkpoint.with_suffix(".tensorboard")


def require_tensorboard() -> type[Any]:
    """Return the class that writes events.

    Raises:
        ConfigError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "--tensorboard needs tensorboard: pip install 'newllm[tensorboard]' "
            "(the same figures are always in NAME.metrics.jsonl)"
        ) from error
    return SummaryWriter


class TensorBoardEvents:
    """Writes every number of a line as a scalar `event/place/of/the/number`.

    Events of an earlier run of the same name are removed: they would be drawn as this one's.

    Raises:
        ConfigError: tensorboard is not installed.
        InputError: the folder cannot be written.
    """

    def __init__(self, checkpoint: Path) -> None:
        writer = require_tensorboard()
        folder = events_folder(checkpoint)
        try:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = writer(str(folder))
        except OSError as error:
            raise InputError(f"cannot write {folder}: {error.strerror or error}") from error
        self._lines: dict[str, int] = {}

    def write(self, event: str, figures: Mapping[str, Any]) -> None:
        """Add the numbers of one line."""
        self._lines[event] = self._lines.get(event, 0) + 1
        step = next((figures[key] for key in STEP_KEYS if key in figures), self._lines[event])
        for tag, value in numbers(figures):
            self._writer.add_scalar(f"{event}/{tag}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def numbers(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield every number in nested mappings and lists, with its place; counters are left out."""
    for key, value in figures.items():
        if isinstance(value, list | tuple):
            value = {str(index): inner for index, inner in enumerate(value, 1)}
        if isinstance(value, Mapping):
            yield from numbers(value, f"{prefix}{key}/")
        elif _is_number(value) and (prefix or key not in STEP_KEYS):
            yield f"{prefix}{key}", float(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
