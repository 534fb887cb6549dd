"""What Phase 2 may train for beside token heads: an objective, a regularizer.

Shapes: N rows (B streams of T tokens), C context_dim, E embed_dim.
"""

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from newllm_core.config import Config
from newllm_core.errors import ConfigError
from newllm_core.model.language_model import LanguageModel, random_stream
from newllm_core.objectives.base import EMBEDDING_MATRIX, Objective
from newllm_core.objectives.reads import OF_READINGS, check_reads, offsets
from newllm_core.parallel import collectives
from newllm_core.parallel.dtensors import full_tensor
from newllm_core.plugins.registry import OBJECTIVES, REGULARIZERS, Registry
from newllm_core.regularizers.base import Regularizer
from newllm_core.training.plugin_terms import objective_loss, regularizer_loss


class ExtraTerms(nn.Module):
    """The terms that are configured, none of them by default.

    Args:
        config: uses `phase2`, and the options of the plugins.
        model: on any device; sizes and seed are its own.
        trained: parameters of the objective that Phase 1 trained; taken over if it is the same.

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
        chosen, self.weights = config.phase2, {}
        self.objective: Objective | None = None
        self.regularizer: Regularizer | None = None
        self.names = {"objective": "", "regularizer": ""}
        self._is_phase1s = False
        if chosen.objective_weight or (chosen.objective and chosen.objective_weight is None):
            name = chosen.objective or config.phase1.objective
            weight = 1.0 if chosen.objective_weight is None else chosen.objective_weight
            options = _options(OBJECTIVES, name, config.phase1.objective, config.objective)
            self.objective, _ = make_objective(name, replace(config, objective=options), model)
            self._refuse_readings(name)
            self._is_phase1s = name == config.phase1.objective
            if self._is_phase1s and trained:
                self._take_over(name, trained)
            self.weights[name] = weight
            self.names["objective"] = name
        if chosen.reg_weight or (chosen.reg and chosen.reg_weight is None):
            name = chosen.reg or config.phase1.reg
            options = _options(REGULARIZERS, name, config.phase1.reg, config.regularizer)
            (self.regularizer,), _ = REGULARIZERS.make(name, options, model.context_dim)
            default = self.regularizer.default_weight
            self.weights[name] = default if chosen.reg_weight is None else chosen.reg_weight
            self.names["regularizer"] = name

    def _take_over(self, name: str, trained: Mapping[str, Tensor]) -> None:
        assert self.objective is not None
        state = self.objective.state_dict()
        shapes = {key: value.shape for key, value in state.items()}
        if shapes != {key: value.shape for key, value in trained.items()}:
            raise ConfigError(
                f"phase2.objective = {name} does not fit what phase 1 trained: give it the options "
                "that it had there"
            )
        self.objective.load_state_dict(dict(trained))

    def _refuse_readings(self, name: str) -> None:
        assert self.objective is not None
        for wanted in self.objective.reads:
            if wanted in OF_READINGS:
                raise ConfigError(
                    f"phase2.objective = {name} reads {wanted!r}, and Phase 2 reads a text once: "
                    "choose an objective that does not"
                )

    def objective_state(self) -> dict[str, Tensor]:
        """Copy the parameters of Phase 1's objective, to be saved; empty unless it is trained."""
        own = self.objective if self._is_phase1s else None
        state = {} if own is None else own.state_dict()
        return {name: tensor.detach().cpu().clone() for name, tensor in state.items()}

    @property
    def wanted(self) -> bool:
        """Return whether there is any term."""
        return bool(self.weights)

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

        Args:
            model: the recurrence.
            contexts_BTC: c_t after the last block.
            start_BC: the contexts before the first token.
            inputs_BT: the tokens that were read.
            streams: how many streams each process has.
            others: the tokens so many places after those that were read [N], or `NO_TOKEN`.
        """
        found = {}
        final_NC = contexts_BTC.flatten(0, 1)
        with model.narrow_products():
            if self.objective is not None:
                previous_BTC = torch.cat([start_BC[:, None], contexts_BTC[:, :-1]], dim=1)
                read = self._read(model, others)
                loss = objective_loss(
                    self.names["objective"],
                    self.objective,
                    final_NC=final_NC,
                    incoming_NC=previous_BTC.flatten(0, 1).detach(),
                    embedded_NE=model.embed(inputs_BT).flatten(0, 1).detach(),
                    **read,
                )
                found[self.names["objective"]] = collectives.mean_of(loss, streams)
            if self.regularizer is not None:
                length = inputs_BT.shape[1]
                rows = [count * length for count in streams]
                all_NC = collectives.gather(final_NC, rows)
                ids_N = collectives.gather(inputs_BT.flatten(), rows)
                name = self.names["regularizer"]
                found[name] = regularizer_loss(name, self.regularizer, all_NC, ids_N)
        return found

    def _read(self, model: LanguageModel, others: Callable[[int], Tensor]) -> dict[str, Tensor]:
        assert self.objective is not None
        reads = self.objective.reads
        read = {name: others(offset) for name, offset in offsets(reads).items()}
        if EMBEDDING_MATRIX in reads:
            read[EMBEDDING_MATRIX] = full_tensor(model.embedding.weight.detach())
        return read


def _options(
    registry: Registry, name: str, of_phase1: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """Choose the options of a plugin that need not be the one that Phase 1 was given.

    What only Phase 1's plugin knows is left out.
    """
    if name == of_phase1:
        return dict(given)
    known, others = (
        {spec.name for spec in fields(registry.load(plugin).Options)}
        for plugin in (name, of_phase1)
    )
    return {key: value for key, value in given.items() if key in known or key not in others}


def make_objective(
    name: str, config: Config, model: LanguageModel
) -> tuple[Objective, dict[str, Any]]:
    """Make an objective of a model's sizes with its options; returns it and all options.

    Raises:
        ConfigError: an unknown name or option.
        PluginError: it cannot be made, or reads what nobody supplies.
    """
    sizes = (model.context_dim, model.config.embed_dim, model.vocab_size)
    (objective,), options = OBJECTIVES.make(name, config.objective, *sizes)
    with OBJECTIVES.blame(name, "cannot be made"):
        check_reads(objective)
        # A random stream of its own: a seed draws the same parameters beside any model.
        objective.initialise(random_stream(model.seed, "decoder"))
    return objective, options
