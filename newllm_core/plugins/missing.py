"""Plugins that made a checkpoint and are not here any more."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from newllm_core.errors import UserError
from newllm_core.plugins.plugin import OWN_DISTRIBUTION
from newllm_core.plugins.registry import REGISTRIES, REGULARIZERS


def missing_plugins(provenance: Mapping[str, Any]) -> list[str]:
    """Return one line for each plugin in a checkpoint's provenance that cannot be found here.

    Analysis, heads and text need none of them but the cell, without which no model is made.
    """
    lines = []
    for record in provenance.get("plugins", []):
        registry = next((r for r in REGISTRIES if r.kind == record.get("kind")), REGULARIZERS)
        name, distribution = record["name"], record["distribution"]
        if distribution == OWN_DISTRIBUTION:
            continue
        with suppress(UserError):
            if registry.find(name).distribution == distribution:
                continue
        from_file = distribution == "file"
        what = record.get("target", "a file") if from_file else distribution
        remedy = "give it with --plugin" if from_file else "install it"
        lines.append(
            f"{registry.kind} {name!r} of {what} {record['version']} is not here: {remedy} "
            f"{registry.needed_for}"
        )
    return list(dict.fromkeys(lines))  # two phases may have had the same
