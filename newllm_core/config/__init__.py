"""Every hyperparameter: its type, only default, help text and bounds. Standard library only.

A section is a frozen dataclass, in a file of its own; `Config` holds one of each. Command-line
flags, TOML keys, environment variables, `--help` and the config saved in a checkpoint all derive
from the fields there. Values are checked when a section is made.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from newllm_core.config.analysis import AnalysisConfig
from newllm_core.config.data import DataConfig
from newllm_core.config.gate import GateConfig
from newllm_core.config.generation import GenerationConfig
from newllm_core.config.healthy import HealthyConfig
from newllm_core.config.model import ModelConfig
from newllm_core.config.option import option as option
from newllm_core.config.phase1 import Phase1Config
from newllm_core.config.phase2 import Phase2Config
from newllm_core.config.run import RunConfig


@dataclass(frozen=True)
class Config:
    """One of each section; those of plugins hold the options that their plugin declares."""

    run: RunConfig = field(default_factory=RunConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    phase1: Phase1Config = field(default_factory=Phase1Config)
    phase2: Phase2Config = field(default_factory=Phase2Config)
    gate: GateConfig = field(default_factory=GateConfig)
    healthy: HealthyConfig = field(default_factory=HealthyConfig)
    analysis: AnalysisConfig = field(default_factory=AnalysisConfig)
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    cell: Mapping[str, Any] = field(default_factory=dict)
    objective: Mapping[str, Any] = field(default_factory=dict)
    regularizer: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, Any] = field(default_factory=dict)


# Sections with the options of a plugin, and the setting that names the plugin.
PLUGIN_SECTIONS = {
    "cell": ("model", "cell"),
    "objective": ("phase1", "objective"),
    "regularizer": ("phase1", "reg"),
    "source": ("data", "source"),
}
SECTIONS: dict[str, type[Any]] = {
    spec.name: cast(type[Any], spec.default_factory)
    for spec in fields(Config)
    if spec.name not in PLUGIN_SECTIONS
}
