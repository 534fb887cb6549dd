"""Settings that a checkpoint decides: whoever asks for others is told so."""

from collections.abc import Iterable
from typing import Any

from newllm_core.config import Config
from newllm_core.config.values import convert, text_of, unknown
from newllm_core.errors import ConfigError
from newllm_core.settings import Layer, Settings, to_dict

# What it is made of, for every command but those that train.
SECTIONS = ("model", "phase1", "cell", "objective", "regularizer")
# It holds its probes: these settings count when Phase 1 chooses them.
OF_PROBES = ("probe_tokens", "probe_passages", "warmup_tokens")


def require_kept(given: Settings, checkpoint: Config, sections: Iterable[str] = SECTIONS) -> None:
    """Raise `ConfigError` for a flag that asks of a checkpoint what its config says otherwise.

    Files and the environment hold settings of many commands: there they are left alone.
    """
    _require({section: given.flags.get(section, {}) for section in sections}, checkpoint)


def require_probes(given: Settings, checkpoint: Config) -> None:
    """Raise `ConfigError` for a flag that asks for other probes than a checkpoint holds."""
    asked = given.flags.get("analysis", {})
    _require({"analysis": {key: asked[key] for key in OF_PROBES if key in asked}}, checkpoint)


def _require(asked_for: Layer, checkpoint: Config) -> None:
    saved = to_dict(checkpoint)
    for section, values in asked_for.items():
        for key, value in values.items():
            name, own = f"{section}.{key}", saved[section]
            if key not in own:
                raise ConfigError(unknown(f"key {name} of this checkpoint", key, list(own)))
            asked, had = _shown(value, own[key], name), text_of(own[key]).lower()
            if asked != had:
                raise ConfigError(
                    f"{name} is {had} in this checkpoint and cannot become {asked}: leave it out, "
                    "or train another with newllm phase1"
                )


def _shown(value: Any, had: Any, name: str) -> str:  # noqa: ANN401 - values of any setting
    is_plain = isinstance(had, bool | int | float | str)
    return text_of(convert(value, type(had), name) if is_plain else value).lower()
