"""What Phase 2 may train for beside token heads: an objective, a regularizer.

Shapes: N rows (B streams of T tokens), C context_dim, E embed_dim.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from newllm_core.config import Config
from newllm_core.errors import ConfigError, PluginError
from newllm_core.model.language_model import LanguageModel, random_stream
from newllm_core.objectives.base import (
    EMBEDDING_MATRIX,
    OF_READINGS,
    Objective,
    check_reads,
    offsets,
)
from newllm_core.objectives.probe import probe
from newllm_core.parallel import collectives
from newllm_core.parallel.collectives import full_tensor
from newllm_core.plugins.registry import OBJECTIVES, REGULARIZERS
from newllm_core.regularizers.base import Regularizer
from newllm_core.regularizers.make import make_regularizers
from newllm_core.runtime.repeatable import seeded
from newllm_core.training.phase2.terms import terms_of
from newllm_core.training.plugin_terms import plugin_loss


class ExtraTerms(nn.Module):
    """The terms that are configured, none of them by default.

    Parameters of Phase 1's objective begin as it left them (`trained`).

    Raises:
        ConfigError: an unknown plugin, or an objective that needs readings which Phase 2 has not.
        PluginError: the plugin cannot be made.

    Attributes:
        objective: its parameters are trained with the heads; None without one.
        regularizer: None without one.
        weights: of both, by name of the term.
    """

    def __init__(self, config: Config, model: LanguageModel, trained: Mapping[str, Tensor]) -> None:
        super().__init__()
        objective, regularizer = terms_of(config)
        self.objective: Objective | None = None
        self.regularizer: Regularizer | None = None
        self.weights: dict[str, float] = {}
        self.objective_name = name = objective.name
        self._is_phase1s = name == objective.of_phase1
        if objective.is_wanted:
            config = replace(config, objective=objective.options())
            self.objective, _ = make_objective(name, config, model)
            for read in self.objective.reads:
                if read in OF_READINGS:
                    raise ConfigError(
                        f"phase2.objective = {name} reads {read!r}, and Phase 2 reads a text once: "
                        "choose an objective that does not"
                    )
            if self._is_phase1s and trained:
                shapes = {key: value.shape for key, value in self.objective.state_dict().items()}
                if shapes != {key: value.shape for key, value in trained.items()}:
                    raise ConfigError(
                        f"phase2.objective = {name} does not fit what phase 1 trained: give it the "
                        "options that it had there"
                    )
                self.objective.load_state_dict(dict(trained))
            self.weights[name] = 1.0 if objective.weight is None else objective.weight
        self.regularizer_name = name = regularizer.name
        if regularizer.is_wanted:
            (self.regularizer,), _, _ = make_regularizers(
                name, regularizer.options(), model.context_dim, seed=model.seed
            )
            weight = regularizer.weight
            self.weights[name] = self.regularizer.default_weight if weight is None else weight

    def objective_state(self) -> dict[str, Tensor]:
        """Copy the parameters of Phase 1's objective, to be saved; empty unless it is trained."""
        own = self.objective if self._is_phase1s else None
        state = {} if own is None else own.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    def forward(
        self,
        model: LanguageModel,
        contexts_BTC: Tensor,
        *,
        start_BC: Tensor,
        inputs_BT: Tensor,
        streams: list[int],
        others: Callable[[int], Tensor],
    ) -> dict[str, Tensor]:
        """Compute every term before weighting, with gradient.

        Each process has so many `streams`, read from `start_BC`. `others` looks up the tokens so
        many places after those that were read [N], or `NO_TOKEN`.
        """
        found = {}
        final_NC = contexts_BTC.flatten(0, 1)
        with model.narrow_products():
            if self.objective is not None:
                previous_BTC = torch.cat([start_BC[:, None], contexts_BTC[:, :-1]], dim=1)
                reads = self.objective.reads
                read = {name: others(offset) for name, offset in offsets(reads).items()}
                if EMBEDDING_MATRIX in reads:
                    read[EMBEDDING_MATRIX] = full_tensor(model.embedding.weight.detach())
                loss = plugin_loss(
                    OBJECTIVES,
                    self.objective_name,
                    self.objective,
                    final_NC=final_NC,
                    incoming_NC=previous_BTC.flatten(0, 1).detach(),
                    embedded_NE=model.embed(inputs_BT).flatten(0, 1).detach(),
                    **read,
                )
                found[self.objective_name] = collectives.share_of_mean(loss, streams)
            if self.regularizer is not None:
                rows = [count * inputs_BT.shape[1] for count in streams]
                found[self.regularizer_name] = plugin_loss(
                    REGULARIZERS,
                    self.regularizer_name,
                    self.regularizer,
                    contexts_ND=collectives.gather(final_NC, rows),
                    tokens_N=collectives.gather(inputs_BT.flatten(), rows),
                )
        return found


def make_objective(
    name: str, config: Config, model: LanguageModel
) -> tuple[Objective, dict[str, Any]]:
    """Make an objective of a model's sizes with its options; returns it and all options.

    Raises:
        ConfigError: an unknown name or option.
        PluginError: it cannot be made, or reads what nobody supplies.
    """
    sizes = (model.context_dim, model.config.embed_dim, model.vocab_size)

    def make() -> tuple[Objective, dict[str, Any]]:
        (objective,), options = OBJECTIVES.make(name, config.objective, *sizes)
        with OBJECTIVES.blame(name, "cannot be made"):
            # A random stream of its own: a seed draws the same parameters beside any model.
            objective.initialise(random_stream(model.seed, "decoder"))
        return objective, options

    with seeded(model.seed):
        made = make()
    plugin = OBJECTIVES.find(name)
    what = OBJECTIVES.describe(plugin)
    try:
        check_reads(made[0])
    except PluginError as error:
        raise PluginError(f"{what}: {error}") from error
    if not plugin.is_own:
        with OBJECTIVES.blame(name):
            probe(lambda: make()[0], model.seed, what)
    return made
