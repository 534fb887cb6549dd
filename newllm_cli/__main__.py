"""Entry point of `newllm` and `python -m newllm_cli`: errors become exit codes here."""

import os
import sys

from newllm_core.errors import INTERRUPTED, InputError, Interrupted, UserError

INTERRUPTED_LINE = "newllm: interrupted; files that exist are as they were"


def main() -> None:
    """Run the command line.

    A mistake the user can mend is one line on stderr and a documented exit code; anything else is
    a bug and keeps its traceback. `NEWLLM_DEBUG=1` shows the traceback of every error.
    """
    from newllm_cli.signals import end_on_signals

    end_on_signals(INTERRUPTED_LINE)

    from newllm_cli.app import app
    from newllm_cli.processes import how_to_continue, speaks
    from newllm_cli.streams import cannot_write, discard_output, flush_output, prepare_streams

    # A waiting thread that spins takes the core from whoever works on it: with one busy process
    # beside us small matrix products become two to three times slower. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    prepare_streams()
    try:
        app()
    except UserError as error:
        if os.environ.get("NEWLLM_DEBUG") == "1":
            raise
        if speaks(error):
            print(f"newllm: {error}", file=sys.stderr)
            if isinstance(error, Interrupted) and (how := how_to_continue()):
                print(how, file=sys.stderr)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C
            print(INTERRUPTED_LINE, file=sys.stderr)
        elif not end.code and (full := flush_output()) is not None:
            sys.exit(_no_output(full))
        raise
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        discard_output()
    except OSError as error:
        if not cannot_write(error):
            raise
        sys.exit(_no_output(error))


def _no_output(error: OSError) -> int:
    from newllm_cli.streams import discard_output

    discard_output()
    print(f"newllm: cannot write the output: {error.strerror}", file=sys.stderr)
    return InputError.exit_code


if __name__ == "__main__":
    main()
