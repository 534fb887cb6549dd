"""From a name and options in the configuration to regularizers."""

import dataclasses
from typing import Any

from newllm_core.config import Config
from newllm_core.errors import ConfigError, PluginError
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.regularizers.base import Regularizer
from newllm_core.settings import make_section


def build_regularizers(config: Config, count: int) -> tuple[list[Regularizer], dict[str, Any]]:
    """`count` regularizers as configured, and their resolved options.

    Raises:
        ConfigError: an unknown name or option.
        PluginError: the plugin cannot be made.
    """
    name = config.phase1.reg
    plugin = REGULARIZERS.load(name)
    options = make_section(plugin.Options, "regularizer", config.regularizer)
    try:
        made = [plugin(config.model.context_dim, options) for _ in range(count)]
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        found = REGULARIZERS.find(name)
        what = REGULARIZERS.describe(found)
        raise PluginError(f"{what} cannot be made: {found.raised(error)}") from error
    return made, dataclasses.asdict(options)
