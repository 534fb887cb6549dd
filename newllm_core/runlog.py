"""The figures of a run, one JSON object a line, in `NAME.metrics.jsonl` beside its checkpoint."""

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from newllm_core.errors import InputError
from newllm_core.tensorboard import TensorBoardEvents


def metrics_path(checkpoint: Path) -> Path:
    """Where the metrics of `checkpoint` are."""
    return checkpoint.with_name(checkpoint.name.removesuffix(".safetensors") + ".metrics.jsonl")


class RunLog:
    """Appends a line for every event; a line is on disk before the next is made.

    Args:
        checkpoint: what the log lies beside.
        tensorboard: write the same figures as TensorBoard events too.

    Raises:
        InputError: the file cannot be written.
        ConfigError: TensorBoard is asked for and not installed.
    """

    def __init__(self, checkpoint: Path, *, tensorboard: bool = False) -> None:
        path = metrics_path(checkpoint)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        self._events = TensorBoardEvents(checkpoint) if tensorboard else None

    def write(self, event: str, **figures: Any) -> None:  # noqa: ANN401 - anything JSON can hold
        """Add one line."""
        self._file.write(json.dumps({"event": event} | figures) + "\n")
        self._file.flush()
        if self._events is not None:
            self._events.write(event, figures)

    def __enter__(self) -> "RunLog":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()
