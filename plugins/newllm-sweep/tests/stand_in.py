"""What newllm does for a sweep, in milliseconds: figures follow from the settings.

With a file, it is one process of a sweep that runs this instead of newllm.
"""

import json
import sys
import time
from pathlib import Path

PLAN = """
commands = ["phase1 --data nowhere", "analyze {phase1}"]
[search]
trials = 12
[parameters]
"phase1.dist_reg_weight" = { low = 0.1, high = 0.8 }
"phase1.max_iterations" = { low = 2, high = 6 }
[objectives]
"phase1.loss" = "minimize"
"""


def main(arguments):
    name, given = arguments[0], {}
    for word in arguments[1:]:
        key, equals, value = word.removeprefix("--set=").partition("=")
        if equals:
            given[key] = value
    out = Path(given["--out"]) if "--out" in given else None
    weight = float(given["phase1.dist_reg_weight"])
    iterations = int(given.get("phase1.max_iterations", 1))
    if weight > 0.85:
        sys.exit("too much")  # exit code 1
    if given.get("phase1.reg") == "none":
        print("newllm: diverged at step 3", file=sys.stderr)
        sys.exit(5)
    if name == "phase1":
        figures = out.with_suffix(".metrics.jsonl")
        for step in range(iterations):
            with figures.open("a") as file:
                line = {"event": "iteration", "terms": {"loss": weight + 1 / (step + 1)}}
                file.write(json.dumps(line) + "\n")
            time.sleep(0.08)
        with (out.parent / "runs").open("a") as file:
            file.write("one\n")
    told = {"loss": (weight - 0.5) ** 2, "size": [iterations], "weight": weight, "none": None}
    print(json.dumps(told))


def work(plan_file, folder):
    import newllm_sweep.worker as worker
    from newllm_sweep.plan import read_plan
    from newllm_sweep.study import Trials

    from newllm_core.runtime.progress import Silent

    worker.NEWLLM = (sys.executable, __file__)
    worker.SECONDS_BETWEEN_LOOKS = 0.02
    plan = read_plan(Path(plan_file))
    worker.work(plan, Trials(plan, Path(folder)), Silent())


if __name__ == "__main__":
    if sys.argv[1].endswith(".toml"):
        work(*sys.argv[1:])
    else:
        main(sys.argv[1:])
