"""Entry point of `newllm` and `python -m newllm_cli`: errors become exit codes here."""

import io
import os
import signal
import sys

from newllm_core.errors import INTERRUPTED, Interrupted, UserError


def main() -> None:
    """Run the command line.

    A mistake the user can mend is one line on stderr and a documented exit code; anything else is
    a bug and keeps its traceback. `NEWLLM_DEBUG=1` shows the traceback of every error.
    """
    from newllm_cli.app import app
    from newllm_cli.processes import command_to_resume, speaks

    # A waiting thread that spins takes the core from whoever works on it: with one busy process
    # beside us small matrix products become two to three times slower. Read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A terminal or pipe that cannot show a bar or a Greek letter shows "?" instead of failing.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C does
    try:
        app()
    except UserError as error:
        if os.environ.get("NEWLLM_DEBUG") == "1":
            raise
        if speaks(error):
            print(f"newllm: {error}", file=sys.stderr)
            command = command_to_resume()
            if command and isinstance(error, Interrupted):
                print(f"to continue: {command}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("newllm: interrupted; files that exist are as they were", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
