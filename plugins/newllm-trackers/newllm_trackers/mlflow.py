"""MLflow (https://mlflow.org): a folder, a database or a server."""

import os
from collections.abc import Mapping
from pathlib import Path

from newllm_trackers import PROJECT, OfLibrary, library


class Mlflow(OfLibrary):
    """Logs to MLflow (extra: mlflow), wherever MLFLOW_TRACKING_URI says."""

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(checkpoint)
        self._mlflow = library("mlflow")
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        self._mlflow.set_experiment(experiment)
        self._run = self._mlflow.start_run(run_name=checkpoint.stem)

    def write(self, event: str, step: int, figures: Mapping[str, float]) -> None:
        """Log numbers at the event's own count."""
        self._mlflow.log_metrics(dict(figures), step=step, run_id=self._run.info.run_id)

    def close(self) -> None:
        """Finish the run."""
        self._mlflow.end_run()
