"""What a regularizer adds to a step of Phase 1, in percent of a step without one.

    python -m benchmarks.regularizer_cost [--preset cvfp-768] [--rounds 7]

The loss is CVFP and the regularizer. All take turns in one run; medians are compared.
"""

import argparse
import statistics
from dataclasses import replace

from newllm_core import settings
from newllm_core.benchmark import Runner
from newllm_core.plugins.registry import REGULARIZERS
from newllm_core.runtime.device import prepare_device


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="cvfp-768")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    config = settings.resolve(settings.from_file(f"preset:{arguments.preset}"))
    device = prepare_device(config.run)
    count = config.phase1.batch_tokens
    sized = replace(
        config.phase1, batch_tokens=count, min_batch_tokens=count, window_tokens=2 * count
    )
    runners = {}
    for name in ("none", *(n for n in REGULARIZERS.plugins() if n != "none")):
        phase1 = replace(sized, reg=name, dist_reg_weight=0.5)
        one = replace(config, phase1=phase1, regularizer={})
        runners[name] = Runner(one, "parallel", config.run.precision, device)
    rates: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(arguments.rounds + 1):
        for name, runner in runners.items():
            rates[name].append(runner.round())
    # The first round allocates and chooses kernels.
    median = {name: statistics.median(found[1:]) for name, found in rates.items()}
    without = median.pop("none")
    milliseconds = 1e3 * count / without
    print(f"{arguments.preset}, {count:,} tokens a step: {milliseconds:.0f} ms without regularizer")
    for name, rate in median.items():
        print(f"{name:20} {without / rate - 1:+.1%}")


if __name__ == "__main__":
    main()
