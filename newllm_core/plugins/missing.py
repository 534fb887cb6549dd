"""Plugins that made a checkpoint and are not here any more."""

from collections.abc import Mapping
from typing import Any

from newllm_core.errors import UserError
from newllm_core.plugins.registry import DATA_SOURCES, OWN_DISTRIBUTION, REGULARIZERS

NEEDED_FOR = {
    REGULARIZERS.kind: "to train like this again",
    DATA_SOURCES.kind: "to prepare this data again",
}


def missing_plugins(provenance: Mapping[str, Any]) -> list[str]:
    """One line for each plugin in a checkpoint's provenance that cannot be found here.

    Analysis, heads and text need none of them.
    """
    lines = []
    for record in provenance.get("plugins", []):
        registry = DATA_SOURCES if record.get("kind") == DATA_SOURCES.kind else REGULARIZERS
        name, distribution = record["name"], record["distribution"]
        if distribution == OWN_DISTRIBUTION:
            continue
        try:
            found = registry.find(name).distribution == distribution
        except UserError:
            found = False
        if not found:
            from_file = distribution == "file"
            what = f"the file {record.get('target', '')}" if from_file else distribution
            remedy = "give it with --plugin" if from_file else "install it"
            lines.append(
                f"{registry.kind} {name!r} of {what} {record['version']} is not here: {remedy} "
                f"{NEEDED_FOR[registry.kind]} (analysis does not need it)"
            )
    return lines
