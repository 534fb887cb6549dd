"""Commands of other distributions, found through the entry-point group `newllm.commands`.

Each is a function with typer's annotations. `newllm --help` lists them without importing any; the
one that is asked for is imported.
"""

from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from newllm_cli.help import HelpfulCommand, opening_nothing


class CommandGroup(TyperGroup):
    """newllm's own commands, and those of other distributions behind them."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ANN401 - as click has it
        """Return the command, importing it if it is another distribution's.

        Raises:
            ConfigError: it is newllm's but not installed, or not allowed.
            PluginError: it cannot be imported, is no function, or two distributions claim it.
        """
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        from newllm_core.plugins.registry import COMMANDS

        if cmd_name in COMMANDS.plugins() or cmd_name in COMMANDS.published:
            settings = dict(self.context_settings)
            app = typer.Typer(
                rich_markup_mode=None, context_settings=settings, add_completion=False
            )
            command = opening_nothing(COMMANDS.load(cmd_name))
            app.command(cmd_name, cls=HelpfulCommand)(command)
            return get_command(app)
        return None

    def invoke(self, ctx: Any) -> None:  # noqa: ANN401
        """Run a command; what its function returns is not an exit code."""
        super().invoke(ctx)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401
        """List newllm's own commands, then the others and where each is from."""
        super().format_commands(ctx, formatter)
        from newllm_core.plugins.registry import COMMANDS

        found = [first for first, *_ in COMMANDS.plugins().values()]
        records = [
            (plugin.name, ": ".join(filter(None, (plugin.distribution, plugin.about))))
            for plugin in found
            if plugin.name not in self.commands
        ]
        if records:
            with formatter.section("Commands of other packages"):
                formatter.write_dl(records)
