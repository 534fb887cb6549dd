"""`--help` as plain text: importing and drawing boxes took longer than everything else it does."""

import inspect
import re
from collections.abc import Callable
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup
from typer.models import ParameterInfo

from newllm_core.errors import ConfigError

LONGEST_SENTENCE = 200
# What typer calls the types of values, and what settings call them.
TYPES = {"<path>": "PATH", "<str>": "TEXT"}
# What typer raises where a command line, or a file that it names, cannot be read; some versions of
# it have it from click.
ClickException: Any = BadParameter.__mro__[2]


class HelpfulCommand(TyperCommand):
    """A command whose options are listed by section and whose examples keep their lines."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Refuse an option that is given twice: of `--x 1 --x 2` one would be ignored."""
        _, _, order = self.make_parser(ctx).parse_args(list(args))
        for option in order:
            if order.count(option) > 1 and not option.multiple and option.nargs == 1:
                names = "/".join([*option.opts, *option.secondary_opts])
                raise ConfigError(f"{names} is given more than once: give it once")
        return super().parse_args(ctx, args)

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the whole first sentence: the list of commands has as many lines as it needs."""
        return super().get_short_help_str(max(limit, LONGEST_SENTENCE))

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write the description, then each example on a line of its own."""
        text, _, examples = inspect.cleandoc(self.help or "").partition("Examples:\n")
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text(text.strip())
        if examples:
            with formatter.section("Examples"):
                for line in filter(None, map(str.strip, examples.splitlines())):
                    formatter.write(f"  {line}\n")

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """Write one list for every section of the configuration."""
        for title, records in options_by_section(self, ctx).items():
            with formatter.section(title):
                formatter.write_dl(records)


class HelpfulGroup(TyperGroup):
    """Commands of one kind, with examples as `HelpfulCommand` shows them."""

    format_help_text = HelpfulCommand.format_help_text


def in_one_line(error: Any) -> str:  # noqa: ANN401
    """Word a `ClickException` as all are; of a command that is missing it is the whole help."""
    message = str(error.format_message())
    if message.startswith("Usage: "):
        return message
    ctx = getattr(error, "ctx", None)  # not every error has one
    where = f"; see {ctx.command_path} -h" if ctx else ""
    known = {name for option in ctx.command.params for name in option.opts} if ctx else set()
    # Which it is in Python, and of bench.
    if getattr(error, "option_name", "") == "--preset" and "--config" in known:
        message = "No such option: --preset: write --config preset:NAME, as in --config preset:tiny"
    return f"newllm: {message.rstrip('.')}{where}"


def opening_nothing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let no option open its file: what reads the file does, and words errors as all others."""
    for parameter in inspect.signature(command).parameters.values():
        for described in getattr(parameter.annotation, "__metadata__", ()):
            if isinstance(described, ParameterInfo):
                described.readable = False
    return command


def options_by_section(command: Any, ctx: Any) -> dict[str, list[tuple[str, str]]]:  # noqa: ANN401
    """Return the flags and the help of every argument and option, by section."""
    sections: dict[str, list[tuple[str, str]]] = {}
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is None:
            continue
        flags, text = record
        flags = re.sub("<.*>", lambda found: TYPES.get(found[0], found[0]), flags)
        if parameter.param_type_name == "argument":
            title, flags = "Arguments", parameter.metavar or flags
        else:
            title = getattr(parameter, "rich_help_panel", None) or "Options"
        # A default given as text comes in round brackets within the square ones.
        text = re.sub(r"\[default: \((.*)\)\]$", r"[default: \1]", text)
        sections.setdefault(title, []).append((flags, text))
    return sections
