"""Running checks to the end and saying at once all that is wrong."""

from collections.abc import Callable, Mapping

from newllm_core.plugins.guard import one_line, place_in


class ConformanceError(AssertionError):
    """A plugin does not keep its contract; the message has one line for each way."""


class Failed(Exception):
    """One check found something; the message says what and what to do."""


def checks_of(case: object) -> dict[str, Callable[[], object]]:
    """Return the methods of `case` that are named `check_…` by their names, as they are written."""
    methods = [name for name in vars(type(case)) if name.startswith("check_")]
    return {m.removeprefix("check_").replace("_", " "): getattr(case, m) for m in methods}


def failures(checks: Mapping[str, Callable[[], object]], subject: type) -> list[str]:
    """Run every check of a plugin's class; one line for each that failed."""
    found = []
    for name, check in checks.items():
        try:
            check()
        except Failed as failure:
            found.append(f"{name}: {failure}")
        except (Exception, SystemExit) as error:  # the plugin's own
            place = place_in(subject.__module__, error)
            found.append(f"{name}: it raised {one_line(error)}" + (f" ({place})" if place else ""))
    return found


def report(subject: type, found: list[str]) -> None:
    """Raise `ConformanceError` if anything was found."""
    if found:
        where = f"{subject.__module__}:{subject.__qualname__}"
        raise ConformanceError("\n  ".join([f"{where} fails {len(found)} check(s):", *found]))
