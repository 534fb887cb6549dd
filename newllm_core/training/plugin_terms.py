"""Losses that plugins compute: called, blamed, and held to be scalars."""

from typing import Any

from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.objectives.base import Objective
from newllm_core.plugins.registry import Registry
from newllm_core.regularizers.base import Regularizer
from newllm_core.runtime.repeatable import leaving_alone


def plugin_loss(
    registry: Registry, name: str, plugin: Objective | Regularizer, **given: Tensor
) -> Tensor:
    """Call the objective or regularizer that is registered as `name`.

    Raises:
        PluginError: it fails, returns no scalar tensor, or depends on calls before or on chance.
    """
    is_objective = isinstance(plugin, Objective)
    compute: Any = plugin.loss if is_objective else plugin
    kept = plugin if is_objective or not plugin.training else None
    with (
        registry.blame(name),
        leaving_alone(kept, lambda: f"{registry.describe(registry.find(name))}: loss"),
    ):
        loss = compute(**given)
    if isinstance(loss, Tensor) and loss.ndim == 0:
        return loss
    raise PluginError(f"{registry.describe(registry.find(name))} returned no scalar tensor")
