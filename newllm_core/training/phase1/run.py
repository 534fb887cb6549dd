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
from newllm_core.training.phase1.result import Phase1Result
from newllm_core.training.phase1.trainer import Phase1Trainer
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
    """Train `model` and `objective` in place.

    Args:
        model: gets its blocks trained.
        objective: gets its parameters trained, if it has any.
        regularizers: one, or one per layer (`apply_to`).
        tokens: token ids [T] of "train" and "validation".
        config: uses the sections `phase1` and `run`.
        end_id: the token that closes a document; -1 where there is none.
        device: where to compute.
        log: gets one line per iteration.
        progress: is told how far it is.
        saver: saves the state of the run.
        resumed: the state to continue from; everything else is as for a new run.

    Raises:
        DivergedError: a loss or gradient is not finite.
        Interrupted: the run was asked to stop; its state is saved.
    """
    loss = Phase1Loss(model, objective, regularizers, config.phase1).to(device)
    trainer = Phase1Trainer(loss, tokens, config, device=device, end_id=end_id, progress=progress)
    trainer.saver = saver
    if resumed is not None:
        with restoring(resumed):
            trainer.load_state(resumed)
    elif saver is not None:
        saver.save(trainer.state())  # before there are any figures
    return trainer.run(log)
