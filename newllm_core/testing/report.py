"""Running checks to the end and saying at once all that is wrong."""

from collections.abc import Callable, Mapping

from newllm_core.plugins.guard import ConformanceError, one_line, place_in


class Failed(Exception):
    """One check found something; the message says what and what to do."""


def checks_of(case: object) -> dict[str, Callable[[], object]]:
    """Return the methods of `case` that are named `check_…` by their names, as they are written."""
    methods = [name for name in vars(type(case)) if name.startswith("check_")]
    return {m.removeprefix("check_").replace("_", " "): getattr(case, m) for m in methods}


def run_checks(subject: type, checks: Mapping[str, Callable[[], object]]) -> None:
    """Run every check of a plugin's class.

    Raises:
        ConformanceError: with one line for each way in which checks failed.
    """
    found: dict[str, list[str]] = {}
    for name, check in checks.items():
        try:
            check()
        except Failed as failure:
            found.setdefault(str(failure), []).append(name)
        except (Exception, SystemExit) as error:  # the plugin's own
            place = place_in(subject.__module__, error)
            at = f" ({place})" if place else ""
            found.setdefault(f"it raised {one_line(error)}{at}", []).append(name)
    if found:
        failures = [
            f"{first}: {said}" + (f" (also {', '.join(others)})" if others else "")
            for said, (first, *others) in found.items()
        ]
        raise ConformanceError(f"{subject.__module__}:{subject.__qualname__}", failures)
