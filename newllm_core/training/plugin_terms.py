"""Losses that plugins compute: called, blamed, and held to be scalars.

Shapes: N rows, C context_dim.
"""

from typing import Any

from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.objectives.base import Objective
from newllm_core.plugins.registry import OBJECTIVES, REGULARIZERS, Registry
from newllm_core.regularizers.base import Regularizer


def objective_loss(name: str, objective: Objective, **given: Tensor) -> Tensor:
    """Call the objective that is registered as `name`.

    Raises:
        PluginError: it fails, or returns no scalar tensor.
    """
    with OBJECTIVES.blame(name):
        loss = objective.loss(**given)
    return _scalar(OBJECTIVES, name, objective, loss)


def regularizer_loss(
    name: str, regularizer: Regularizer, contexts_NC: Tensor, tokens_N: Tensor
) -> Tensor:
    """Call the regularizer that is registered as `name`.

    Raises:
        PluginError: it fails, or returns no scalar tensor.
    """
    with REGULARIZERS.blame(name):
        loss = regularizer(contexts_NC, tokens_N=tokens_N)
    return _scalar(REGULARIZERS, name, regularizer, loss)


def _scalar(registry: Registry, name: str, plugin: object, loss: Any) -> Tensor:  # noqa: ANN401
    if isinstance(loss, Tensor) and loss.ndim == 0:
        return loss
    raise PluginError(
        f"{registry.kind} {name!r} ({type(plugin).__module__}:{type(plugin).__name__}) returned no "
        "scalar tensor"
    )
