"""Checkpoints and foreign networks side by side: configs, health and figures."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from newllm_core import settings
from newllm_core.analysis.analyze import analyze
from newllm_core.analysis.foreign.opening import examine_file, require_openable
from newllm_core.analysis.report.figures import LANGUAGE_MODEL
from newllm_core.checkpoint.format import Checkpoint, is_checkpoint, load
from newllm_core.checkpoint.kept import require_probes
from newllm_core.checkpoint.metadata import SPLITS
from newllm_core.config import Config
from newllm_core.errors import ConfigError, DivergedError
from newllm_core.files.strict_json import finite
from newllm_core.runtime.device import prepare_device
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.settings import Settings

SCHEMA = 1
# Where a run computed says nothing about what came out.
NOT_COMPARED = ("run.device", "run.threads")
# Sections that mean nothing before Phase 2.
LATER_SECTIONS = ("phase2", "gate")


def compare(
    paths: Sequence[Path],
    *,
    given: Settings | None = None,
    progress: Progress | None = None,
    tokens: Sequence[Path] | None = None,
    kind: str | None = None,
    embedding: str | None = None,
) -> dict[str, Any]:
    """Analyse every network, without its random control, and put the results together.

    One model is in memory at a time. What is `given` counts as in `analyze`, and must not
    contradict a checkpoint, see `load`. Those that are no checkpoints of newllm read `tokens`;
    `kind` and `embedding` say how they are opened, see `examine_file`.

    Returns:
        `checkpoints`: for each the `train` and `validation` figures and `verdicts` of `analyze`
        (None with an `error` where contexts are not finite; `validation` is None of a network that
        read one text), and under `language_model` what its heads reach (None before Phase 2);
        `config_differences` and `plugin_differences`: a list of values for everything that is not
        the same in all, None where a checkpoint has no such thing.

    Raises:
        ConfigError: it is not said how a network is to be read, or what was said is for none.
        InputError: a checkpoint cannot be read.
    """
    progress = progress or Silent()
    config = given.resolve() if given else Config()
    device = prepare_device(config.run) if given else None
    names = short_names(paths)
    # All of them are looked for before the first is read, which takes long.
    foreign = [path for path in paths if not is_checkpoint(path)]
    for path in foreign:
        require_openable(path, tokens or (), kind)
    if not foreign and (tokens or kind or embedding):
        raise ConfigError(
            "all of these are checkpoints of newllm, which hold the texts they are analysed on: "
            "leave out --tokens, --as and --embedding"
        )
    entries: list[dict[str, Any]] = []
    # Settings and plugins of each, None of a network that newllm did not make.
    configs: list[dict[str, Any] | None] = []
    plugins: list[dict[str, str] | None] = []
    for number, (path, name) in enumerate(zip(paths, names, strict=True), 1):
        progress.message(f"[{number}/{len(paths)}] {name}")
        shown = ("phase", "parameters", *SPLITS, "verdicts", "error", "language_model")
        entry: dict[str, Any] = {"name": name, "checkpoint": str(path), **dict.fromkeys(shown)}
        report_of: Callable[..., dict[str, Any]]
        if path in foreign:
            configs.append(None)
            plugins.append(None)
            opened = partial(examine_file, path, tokens or (), kind=kind, embedding=embedding)
            report_of = partial(opened, config=config, seed=config.run.seed, device=device)
        else:
            checkpoint = load(path, given=given, device=device, progress=progress)
            if given is not None and not foreign:  # whose passages are chosen now
                require_probes(given, checkpoint.config)
            configs.append(flat_settings(checkpoint.phase, checkpoint.config))
            plugins.append(plugin_versions(checkpoint.provenance))
            entry["phase"] = checkpoint.phase
            entry["parameters"] = sum(p.numel() for p in checkpoint.model.parameters())
            entry["language_model"] = _language_model(checkpoint)
            report_of = partial(analyze, checkpoint, checkpoint_path=path, given=given)
        try:
            report = report_of(progress=progress, with_control=False)
            entry |= {key: report[key] for key in shown if key in report}
        except DivergedError as error:
            entry["error"] = str(error)
            progress.warning(f"{name}: {error}")
        entries.append(entry)
    return finite(
        {
            "schema": SCHEMA,
            "checkpoints": entries,
            "config_differences": differences(configs),
            "plugin_differences": differences(plugins),
        }
    )


def differences(found: Sequence[Mapping[str, Any] | None]) -> dict[str, list[Any]]:
    """Return what is not the same in all, with the values of each; None where there is no such.

    Settings of Phase 2 are compared among those that went through it.
    """
    rows = {}
    known = [of_one for of_one in found if of_one is not None]
    for key in dict.fromkeys(key for of_one in known for key in of_one):
        is_optional = key.partition(".")[0] in LATER_SECTIONS
        compared = [of_one.get(key) for of_one in known if key in of_one or not is_optional]
        if key not in NOT_COMPARED and any(value != compared[0] for value in compared):
            rows[key] = [(of_one or {}).get(key) for of_one in found]
    return rows


def flat_settings(phase: str, config: Config) -> dict[str, Any]:
    """Return `section.key` of the settings of a checkpoint of that phase, with their values."""
    return {
        f"{name}.{key}": "none" if value is None else value
        for name, section in settings.to_dict(config).items()
        if phase != "phase1" or name not in LATER_SECTIONS
        for key, value in section.items()
    }


def plugin_versions(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Return `KIND distribution` and `KIND version` of the plugins that made a checkpoint."""
    found: dict[str, str] = {}
    for record in provenance.get("plugins", []):
        for key in ("distribution", "version"):
            name = f"{record['kind']} {key}"
            # Train and validation may come from two data sources.
            parts = [*found.get(name, "").split(", "), str(record[key])]
            found[name] = ", ".join(dict.fromkeys(filter(None, parts)))
    return found


# Others may be a part of a folder's name, as in mamba-1.4b.
KNOWN_ENDINGS = (".safetensors", ".py")


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return file names without their ending, with as many folders as tell them apart."""
    bare = [p.with_suffix("") if p.suffix in KNOWN_ENDINGS else p for p in paths]
    for depth in range(1, max(len(p.parts) for p in paths) + 1):
        names = ["/".join(path.parts[-depth:]) for path in bare]
        if len(set(names)) == len(set(paths)):
            return names
    return list(map(str, paths))


def _language_model(checkpoint: Checkpoint) -> dict[str, Any] | None:
    results = checkpoint.results
    if not results:
        return None
    return {
        split: {figure: results[split].get(figure) for figure in LANGUAGE_MODEL} for split in SPLITS
    }
