"""Losses that plugins compute: called, blamed, and held to be scalars."""

from typing import Any

from torch import Tensor

from newllm_core.errors import PluginError
from newllm_core.objectives.base import Objective
from newllm_core.plugins.registry import Registry
from newllm_core.regularizers.base import Regularizer


def plugin_loss(
    registry: Registry, name: str, plugin: Objective | Regularizer, **given: Tensor
) -> Tensor:
    """Call the objective or regularizer that is registered as `name`.

    Raises:
        PluginError: it fails, or returns no scalar tensor.
    """
    compute: Any = plugin.loss if isinstance(plugin, Objective) else plugin
    with registry.blame(name):
        loss = compute(**given)
    if isinstance(loss, Tensor) and loss.ndim == 0:
        return loss
    raise PluginError(f"{registry.describe(registry.find(name))} returned no scalar tensor")
