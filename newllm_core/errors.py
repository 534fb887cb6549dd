"""Errors that are the user's to mend, each with the exit code the command line ends with.

A message is one line: what is wrong, where, and what to do about it. Anything that is not a
`UserError` is a bug in newllm (or in a plugin) and ends in a traceback and exit code 1.
"""


class UserError(Exception):
    """Base of every error a user can mend. `exit_code` is documented in `newllm --help`."""

    exit_code = 1


class ConfigError(UserError):
    """An unknown name, key, value or configuration file."""

    exit_code = 2


class InputError(UserError):
    """A file or folder that is missing, empty, foreign, unreadable, or in the way."""

    exit_code = 3


class PluginError(UserError):
    """A plugin that cannot be loaded or does not keep its contract."""

    exit_code = 4


class DivergedError(UserError):
    """Training met a loss or gradient that is not finite."""

    exit_code = 5


class GateRefused(UserError):
    """Phase 2 was asked for on a checkpoint whose contexts are degenerate."""

    exit_code = 6


INTERRUPTED = 130


class Interrupted(UserError):
    """A run was asked to stop, or lost one of its processes; its state is saved."""

    exit_code = INTERRUPTED


class ProcessLost(Interrupted):
    """Another process of the run ended or cannot be reached any more."""
