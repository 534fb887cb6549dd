"""The figures of a run as TensorBoard events, beside its checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from newllm_core.errors import ConfigError, InputError, reason
from newllm_core.runtime.trackers.base import Tracker


class TensorBoard(Tracker):
    """Writes events that TensorBoard shows (extra: tensorboard).

    `tensorboard --logdir` shows the folder `NAME.tensorboard` or any parent. Events of an earlier
    run of the same name are removed: they would be drawn as this one's.

    Raises:
        ConfigError: tensorboard is not installed.
        InputError: the folder cannot be written.
    """

    @classmethod
    def require(cls) -> None:
        """Raise `ConfigError` if tensorboard is not installed."""
        _writer_type()

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(checkpoint)
        writer = _writer_type()
        folder = checkpoint.with_suffix(".tensorboard")
        try:
            for old in folder.glob("events.out.tfevents.*"):
                old.unlink()
            self._writer = writer(str(folder))
        except OSError as error:
            raise InputError(f"cannot write {folder}: {reason(error)}") from error

    def write(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """Add a scalar for every number."""
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


def _writer_type() -> type[Any]:
    try:
        from torch.utils.tensorboard.writer import SummaryWriter
    except ImportError as error:
        raise ConfigError(
            "--track tensorboard needs tensorboard: pip install 'newllm[tensorboard]' "
            "(the same figures are always in NAME.metrics.jsonl)"
        ) from error
    return SummaryWriter
