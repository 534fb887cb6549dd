"""A run of Phase 2, from a checkpoint to a checkpoint."""

import copy
import dataclasses
from contextlib import ExitStack

import torch

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.errors import ConfigError, InputError
from newllm_core.model.counting import count_bigrams
from newllm_core.parallel.sharding import sharded
from newllm_core.training.phase2.extra_terms import ExtraTerms
from newllm_core.training.phase2.steps import trained_parameters, training_only
from newllm_core.training.phase2.terms import terms_of
from newllm_core.training.phase2.trainer import Phase2Trainer
from newllm_core.training.saver import Saver


def train_phase2(
    checkpoint: Checkpoint,
    dataset: PreparedDataset,
    config: Config,
    *,
    device: torch.device | None = None,
    saver: Saver | None = None,
) -> Checkpoint:
    """Train the heads of a checkpoint, which stays as it is, and unless they are frozen its blocks.

    It computes on `device`, by default where the checkpoint's model is. Frozen contexts are kept
    meanwhile where `saver` will write the checkpoint, or in the system's folder. The run goes on
    from what it resumes, if anything. What cannot be done is for `require_possible` to refuse.

    Returns:
        A checkpoint with the trained model; `results` holds the figures of its weights under
        "train" and "validation", those of every epoch under "epochs", and which was "best_epoch".

    Raises:
        InputError: no room for frozen contexts.
        DivergedError: a loss or gradient is not finite.
        Interrupted: the run was asked to stop; its state is saved.
    """
    saver, options = saver or Saver(), config.phase2
    device = device or checkpoint.model.device
    model = copy.deepcopy(checkpoint.model)
    if model.bigrams is not None:
        beginning = dataset.train.tokens[: model.config.counted_tokens]
        end_id = int(dataset.info.end_id)
        count_bigrams(model.bigrams, beginning, end_id=end_id, progress=saver.progress)
    extra = ExtraTerms(config, model, checkpoint.objective)
    extra = extra.to(device, model.embedding.weight.dtype)
    with sharded(model, config.run, device) as trained, ExitStack() as stack:
        parameters = trained_parameters(trained, extra, options)
        stack.enter_context(training_only(trained, parameters))
        run = Phase2Trainer(trained, extra, checkpoint, dataset, config, parameters, saver)
        run.open_source(stack)
        saver.begin(run)
        results = run.train()
    return dataclasses.replace(
        checkpoint,
        model=model,
        objective=extra.objective_state() or checkpoint.objective,
        config=dataclasses.replace(
            checkpoint.config, phase2=options, analysis=config.analysis, gate=config.gate
        ),
        phase="phase2" if options.epochs else checkpoint.phase,  # no epoch trains no head
        results=results,
    )


def require_possible(checkpoint: Checkpoint, dataset: PreparedDataset, config: Config) -> None:
    """Refuse, before anything is written, what `train_phase2` cannot do.

    Raises:
        ConfigError: options that exclude each other, or do not fit the checkpoint.
        InputError: another tokenizer, or too little text.
        PluginError: a plugin that is wanted cannot be made.
    """
    options = config.phase2
    if options.freeze_context and checkpoint.model.config.tie_weights:
        raise ConfigError(
            "phase2.freeze_context cannot train a head that is tied to the embedding: the contexts "
            "would change with it. Fine-tune (without --freeze-context), or start from a phase1 "
            "with model.tie_weights = false"
        )
    if options.head_dropout and not checkpoint.model.config.head_hidden:
        raise ConfigError(
            "phase2.head_dropout is of the hidden layer of a head, and this model's heads have "
            "none: leave it out, or train another with newllm phase1 --head-hidden"
        )
    for name, term in zip(("objective", "reg"), terms_of(config), strict=True):
        if options.freeze_context and term.is_wanted:
            raise ConfigError(
                f"phase2.{name} shapes contexts, and phase2.freeze_context keeps them as they are: "
                "leave out one of them"
            )
    checkpoint.require_tokenizer(dataset.tokenizer_json)
    if len(dataset.train.tokens) < 2:
        raise InputError("there are fewer than two training tokens: prepare more text")
    ExtraTerms(config, checkpoint.model, checkpoint.objective)
