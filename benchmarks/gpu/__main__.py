"""What a GPU does, beside what is asked of it, in under eight minutes of an H100.

    python -m benchmarks.gpu [--only phase1 phase2] > gpu.txt
    python -m benchmarks.gpu --device cpu --quick      # tries the code; the figures mean nothing

Prints a table, and the same as one line of JSON; each figure on stderr as soon as it is known. A
part that fails says so in its row. What is compiled comes last, and not if time runs out. Exit code
2 where there is no CUDA device, 1 if a figure misses its bar or a part failed.
"""

import argparse
import gc
import json
import sys
import time
import traceback
from collections.abc import Iterator

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.gpu.inference import evaluation, generation
from benchmarks.gpu.recurrence import compiled_recurrence, recurrence
from benchmarks.gpu.sameness import sameness
from benchmarks.gpu.timing import Place, Row, row
from benchmarks.gpu.training import compiled_phase1, frozen, phase1, phase2

COMPILED = ("compiled-phase1", "compiled-recurrence")
PARTS = (
    *("phase1", "phase2", "frozen", "recurrence", "generation", "evaluation", "sameness"),
    *COMPILED,
)
# Compiling takes a minute or two, and begins only so many seconds after the start.
LAST_TO_COMPILE_S = 330


def part(name: str, place: Place, peak: float) -> Iterator[Row]:
    """Return the rows of one part."""
    if name == "phase1":
        return phase1(place, peak)
    return {
        "phase2": phase2,
        "frozen": frozen,
        "recurrence": recurrence,
        "generation": generation,
        "evaluation": evaluation,
        "sameness": sameness,
        "compiled-phase1": compiled_phase1,
        "compiled-recurrence": compiled_recurrence,
    }[name](place)


def measured(names: list[str], place: Place) -> Iterator[Row]:
    """Yield the rows of all parts; one that fails is the last of its part."""
    began = time.perf_counter()
    peak = place.peak()
    yield row("bfloat16 product", peak, "TFLOP/s", part="peak")
    for name in names:
        begun = time.perf_counter()
        if name in COMPILED and begun - began > LAST_TO_COMPILE_S:
            yield row("left out, for want of time", 0.0, "", part=name)
            continue
        try:
            yield from (found | {"part": name} for found in part(name, place, peak))
        except Exception as error:  # the other parts are worth having
            traceback.print_exc()
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
            yield row(f"failed: {reason}", 0.0, "", failed=True, part=name)
        yield row("  took", time.perf_counter() - begun, "s", part=name)
        gc.collect()


def reached(found: Row) -> bool:
    """Say whether a row is as it should be."""
    if found.get("failed"):
        return False
    if found["bar"] is None:
        return True
    if found["unit"] == "loss":
        return bool(found["figure"] <= found["bar"])
    return bool(found["figure"] >= found["bar"])


def table_of(rows: list[Row], title: str) -> Table:
    """Make the table."""
    table = Table("part", "case", title=title, title_justify="left")
    for heading in ("figure", "unit", "bar", "", "peak, MiB"):
        table.add_column(heading, justify="right")
    for found in rows:
        bar = "" if found["bar"] is None else f"{found['bar']:,g}"
        verdict = "" if found["bar"] is None else ("yes" if reached(found) else "NO")
        memory = f"{found['memory']:,.0f}" if "memory" in found else ""
        figure = f"{found['figure']:,.4g}" if found["figure"] < 1000 else f"{found['figure']:,.0f}"
        table.add_row(
            found["part"], escape(found["case"]), figure, found["unit"], bar, verdict, memory
        )
    return table


def main() -> int:
    """Measure, and print one table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to try the code")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        build = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "has no CUDA"
        print(
            f"benchmarks.gpu: torch {torch.__version__} {build} and finds no such device here; "
            "--device cpu --quick tries the code",
            file=sys.stderr,
        )
        return 2
    place = Place(torch.device(asked.device), asked.quick)
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "a processor"
    title = f"{name}, torch {torch.__version__}"
    rows = []
    for found in measured(asked.only, place):
        rows.append(found)
        print(json.dumps(found), file=sys.stderr, flush=True)
    Console(width=120).print(table_of(rows, title))
    print(json.dumps({"schema": 1, "device": name, "torch": torch.__version__, "rows": rows}))
    return 0 if all(reached(found) for found in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
