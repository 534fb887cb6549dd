"""Entry point of `newllm` and `python -m newllm_cli`: errors become exit codes here."""

import os
import sys

from newllm_cli.signals import interrupt_on_signals
from newllm_core.errors import (
    INTERRUPTED,
    ConfigError,
    InputError,
    Interrupted,
    UserError,
    one_line,
)

# What torch's allocators say: an exception of its own on CUDA, plain `RuntimeError` elsewhere.
OUT_OF_MEMORY = ("out of memory", "can't allocate memory")


def main() -> None:
    """Run the command line.

    A mistake the user can mend is one line on stderr and a documented exit code; anything else is
    a bug and keeps its traceback. `NEWLLM_DEBUG=1` shows the traceback of every error.
    """
    interrupt_on_signals()
    try:
        _run()
    except KeyboardInterrupt:
        print("newllm: interrupted; files that exist are as they were", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _run() -> None:
    from newllm_cli.streams import cannot_write, discard_output, prepare_streams

    prepare_streams()
    try:
        _run_command()
    except OSError as error:
        if not cannot_write(error):
            raise
        discard_output()
        print(f"newllm: cannot write the output: {error.strerror}", file=sys.stderr)
        sys.exit(InputError.exit_code)


def _run_command() -> None:
    from typer import Abort

    from newllm_cli.app import app
    from newllm_cli.help import ClickException, in_one_line
    from newllm_cli.processes import how_to_continue, speaks
    from newllm_cli.streams import flush_output

    try:
        code = app(prog_name="newllm", standalone_mode=False)
    except ClickException as error:
        print(in_one_line(error), file=sys.stderr)
        sys.exit(error.exit_code)
    except Abort as error:
        if error.__cause__ is not None:  # a file that ended too early: nobody was asked anything
            raise
        raise KeyboardInterrupt from error
    except SystemExit as end:
        # Of a reader that went away typer makes an error.
        code = 0 if isinstance(end.__context__, BrokenPipeError) else end.code
    except UserError as error:
        if os.environ.get("NEWLLM_DEBUG") == "1":
            raise
        if speaks(error):
            print(f"newllm: {error}", file=sys.stderr)
            if isinstance(error, Interrupted) and (how := how_to_continue()):
                print(how, file=sys.stderr)
        sys.exit(error.exit_code)
    except (MemoryError, RuntimeError) as error:
        lacks = isinstance(error, MemoryError) or any(said in str(error) for said in OUT_OF_MEMORY)
        if not lacks or os.environ.get("NEWLLM_DEBUG") == "1":
            raise
        print(
            f"newllm: out of memory ({one_line(str(error), 160)}): less is needed with a smaller "
            "phase1.batch_tokens, phase2.num_streams, phase2.bptt, or model",
            file=sys.stderr,
        )
        sys.exit(ConfigError.exit_code)
    if code == INTERRUPTED:  # what typer makes of Ctrl-C
        raise KeyboardInterrupt
    if not code:
        flush_output()
    sys.exit(code)


if __name__ == "__main__":
    main()
