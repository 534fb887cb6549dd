"""How a script of several runs ends, each of which is kept when it is finished."""

import sys
from collections.abc import Callable

from newllm_core.errors import INTERRUPTED, UserError


def exit_code(run: Callable[[], None]) -> int:
    """Run; a mistake of the user is one line, as on newllm's own command line."""
    try:
        run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last finished run", file=sys.stderr)
        return INTERRUPTED
    return 0
