"""A run of Phase 1 on a model in memory."""

from collections.abc import Mapping

import numpy as np
import torch

from newllm_core.checkpoint.run_state import State, restoring
from newllm_core.config import Config
from newllm_core.model.language_model import LanguageModel
from newllm_core.objectives.base import Objective
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.progress import Progress
from newllm_core.runtime.runlog import RunLog
from newllm_core.training.phase1.loss import Phase1Loss
from newllm_core.training.phase1.trainer import Phase1Result, Phase1Trainer
from newllm_core.training.resume import Saver


def train_phase1(
    model: LanguageModel,
    objective: Objective,
    regularizers: list[Regularizer],
    tokens: Mapping[str, np.ndarray],
    config: Config,
    *,
    end_id: int = -1,
    device: torch.device,
    log: RunLog | None = None,
    progress: Progress | None = None,
    saver: Saver | None = None,
    resumed: State | None = None,
) -> Phase1Result:
    """Train the blocks of `model`, and `objective`, in place.

    `tokens` [T] are of "train" and "validation", `end_id` closes their documents, if any does. A
    run goes on from the state `resumed`; all else is as for a new one.

    Raises:
        DivergedError: a loss or gradient is not finite.
        Interrupted: the run was asked to stop; its state is saved.
    """
    loss = Phase1Loss(model, objective, regularizers, config.phase1).to(device)
    trainer = Phase1Trainer(
        loss, tokens, config, end_id=end_id, progress=progress, log=log, saver=saver
    )
    if resumed is not None:
        with restoring(resumed):
            trainer.load_state(resumed)
    elif saver is not None:
        saver.save(trainer.state())  # before there are any figures
    return trainer.run()
