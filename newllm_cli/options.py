"""Command-line options made from the config dataclasses: names, help, bounds, shown defaults.

Options are None unless given, so that a flag is told from a default and precedence is kept.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from newllm_core import settings
from newllm_core.config import SECTIONS
from newllm_core.config.values import text_of, without_none
from newllm_core.settings import Settings

SEPARATOR = "__"
# Keys of `run` that mean something only where a model is trained.
OF_TRAINING = ("sharding", "check_interval_steps", "save_interval_seconds")

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to stdout instead of tables.")
]
HtmlOption = Annotated[
    Path | None, typer.Option("--html", help="Write one page with charts, FILE.html.")
]
PngOption = Annotated[
    Path | None, typer.Option("--png", help="Write the charts into this folder (extra: png).")
]
TrackOption = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Send figures to this tracker too; repeatable: tensorboard, those of newllm-trackers.",
    ),
]
EncodingOption = Annotated[
    str | None,
    typer.Option("--encoding", help="Encoding of the text, e.g. cp1252.", show_default="utf-8"),
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
ResumeOption = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue an unfinished run of these settings, if there is one; a finished one stays "
        "as it is, with --overwrite too.",
    ),
]
PluginOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--plugin",
        metavar="FILE.py",
        help="Use the plugins of this file, by name: class SpreadOut is spread-out.",
    ),
]


# Of every command that has settings, by the names of their parameters.
COMMON = {
    "config_file": Annotated[
        str | None,
        typer.Option("--config", help="TOML file, or preset:NAME.", metavar="FILE|preset:NAME"),
    ],
    "assignments": Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Any setting; options of plugins too (cell.KEY, objective.KEY, regularizer.KEY, "
            "source.KEY).",
        ),
    ],
    "plugin_files": PluginOption,
}


def with_settings(
    *sections: str, without: tuple[str, ...] = (), trains: bool = False
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command `--config`, `--set`, `--plugin` and a flag for every field of `sections`.

    Those in `without` are left out, and so are those of training unless it `trains`. The command
    receives `given`, the `Settings` they make.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**arguments: Any) -> None:  # noqa: ANN401 - typer passes what the signature says
            flags: dict[str, dict[str, Any]] = {}
            for name in [name for name in arguments if SEPARATOR in name]:
                section, _, key = name.partition(SEPARATOR)
                value = arguments.pop(name)
                if value is not None and value != []:  # a repeatable flag that is not given
                    flags.setdefault(section, {})[key] = value
            file = arguments.pop("config_file")
            assigned = settings.from_assignments(arguments.pop("assignments") or [])
            given = Settings(file, assigned, flags)
            use_plugin_files(arguments.pop("plugin_files", None))
            command(given=given, **arguments)

        own = [p for p in inspect.signature(command).parameters.values() if p.name != "given"]
        generated = dict(COMMON)
        for section in sections:
            generated |= _flags(section, without if trains else (*without, *OF_TRAINING))
        kind = inspect.Parameter.KEYWORD_ONLY
        parameters = [parameter.replace(kind=kind) for parameter in own]
        parameters += [
            inspect.Parameter(name, kind, default=None, annotation=annotation)
            for name, annotation in generated.items()
        ]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        return run

    return decorate


def _flags(section: str, without: tuple[str, ...]) -> dict[str, Any]:
    """Return names and annotations of the parameters that stand for the keys of a section."""
    section_type = SECTIONS[section]
    hints = typing.get_type_hints(section_type)
    panel = section.capitalize().replace("Phase", "Phase ")
    found: dict[str, Any] = {}
    for spec in dataclasses.fields(section_type):
        if spec.name in without:
            continue
        kind = without_none(hints[spec.name])
        # Numbers and lists (1,1) are text here, parsed by the same code as --set and the
        # environment, which words the errors. Texts may hold commas: their flag is repeated.
        annotation = {bool: bool, tuple[str, ...]: list[str]}.get(kind, str)
        name = spec.name.replace("_", "-")
        negative = f"/--no-{name}" if annotation is bool else ""
        option = typer.Option(
            f"--{name}{negative}",
            help=spec.metadata["help"],
            show_default=text_of(spec.default) or "none",
            metavar=_metavar(kind, spec.metadata.get("choices")),
            rich_help_panel=panel,
        )
        found[f"{section}{SEPARATOR}{spec.name}"] = Annotated[annotation | None, option]
    for shorthand, target in section_type.SHORTHANDS.items():
        option = typer.Option(
            f"--{shorthand.replace('_', '-')}",
            help=f"Shorthand for --{target.replace('_', '-')} 1,1,… of so many blocks.",
            metavar="INTEGER",
            rich_help_panel=panel,
        )
        found[f"{section}{SEPARATOR}{shorthand}"] = Annotated[int | None, option]
    return found


def _metavar(kind: Any, choices: tuple[str, ...] | None) -> str | None:  # noqa: ANN401
    if kind is bool:
        return None
    known = {int: "INTEGER", float: "NUMBER", str: "TEXT", tuple[str, ...]: "TEXT"}
    return "|".join(choices) if choices else known.get(kind, "LIST")


def use_plugin_files(paths: list[Path] | None) -> None:
    """Make the plugins of files given with `--plugin` known by their names."""
    if paths:
        from newllm_core.plugins.files import use_file

        for path in paths:
            use_file(path)
