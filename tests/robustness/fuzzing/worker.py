"""Damages files and loads them, in a process of its own with limits on time and memory.

    python -m tests.robustness.fuzzing.worker FOLDER FIRST COUNT [TARGET…]

Prints one JSON document: outcomes counted by target, and failures. A failure names target and
number; that number alone, as FIRST with a COUNT of 1, makes it again.
"""

import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

from tests.robustness.fuzzing.mutations.ways import mutate
from tests.robustness.fuzzing.outcomes import TARGETS, outcome
from tests.robustness.fuzzing.targets.home import Home

SECONDS = 20
BYTES = 1 << 30
# The whole command takes a hundred times as long as a load.
RARE = {"Analyze": 16}


class TooSlow(BaseException):
    """No subclass of `Exception`, so that nobody takes it for damage."""


def too_slow(number, frame):
    raise TooSlow


class Stderr:
    """What is printed to the descriptor, by whoever."""

    def __enter__(self):
        self.file = tempfile.TemporaryFile()
        self.kept = os.dup(2)
        sys.stderr.flush()
        os.dup2(self.file.fileno(), 2)
        return self

    def __exit__(self, *error):
        sys.stderr.flush()
        os.dup2(self.kept, 2)
        os.close(self.kept)
        self.file.seek(0)
        self.text = self.file.read().decode("utf-8", "replace")
        self.file.close()


def attempt(target, number):
    """Outcome and, if it is a failure, what happened."""
    chance = random.Random(f"{type(target).__name__} {number}")
    way, data = mutate(chance, target.good, target.kind)
    target.write(chance, data)
    problem = ""
    with Stderr() as stderr:
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        try:
            result = outcome(target)
        except TooSlow:
            result, problem = "FAILED", f"more than {SECONDS} s"
        except BaseException:
            result, problem = "FAILED", traceback.format_exc()[-1500:]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    if stderr.text and not problem:
        result, problem = "FAILED", f"printed {stderr.text[:500]!r}"
    return result, way, problem


def limit_memory():
    """No more than `BYTES` on top of what is there after every target loaded its good file."""
    if sys.platform != "linux":
        return
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * os.sysconf("SC_PAGE_SIZE") + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def work(folder, first, count, names):
    home = Home(folder)
    targets = [TARGETS[name](home) for name in names]
    for target in targets:
        target.write(random.Random(0), target.good)
        assert target.check() == "equal", type(target).__name__
    warnings.simplefilter("always")
    signal.signal(signal.SIGALRM, too_slow)
    limit_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    counts = {name: Counter() for name in names}
    failures = []
    for number in range(first, first + count):
        target = targets[number % len(targets)]
        name = type(target).__name__
        if (number // len(targets)) % RARE.get(name, 1) and count > 1:
            continue
        (folder / "now").write_text(f"{name} {number}")
        result, way, problem = attempt(target, number)
        counts[name][result] += 1
        if problem:
            failures.append({"target": name, "number": number, "way": way, "problem": problem})
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"counts": counts, "failures": failures, "grown_megabytes": grown >> 10}


def run():
    folder, first, count, *names = sys.argv[1:]
    done = work(Path(folder), int(first), int(count), names or list(TARGETS))
    print(json.dumps(done))


if __name__ == "__main__":
    run()
