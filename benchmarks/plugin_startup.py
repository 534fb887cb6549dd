"""How much slower `newllm --help` and `newllm plugins` get with twenty plugins installed.

    python benchmarks/plugin_startup.py

One of the plugins imports torch at its top level, one raises. Commands with and without plugins
take turns, and the medians are compared. Exit code 1 if help takes 1.1 times as long or more.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NUM_PLUGINS = 20
LIMIT = 1.1
SOURCES = {0: "import torch\n", 1: "raise SystemExit('imported')\n"}


def install(folder: Path) -> None:
    """Write twenty distributions, as pip leaves them."""
    for number in range(NUM_PLUGINS):
        info = folder / f"newllm_extra{number}-1.0.dist-info"
        info.mkdir()
        metadata = f"Metadata-Version: 2.1\nName: newllm-extra{number}\nVersion: 1.0\n"
        (info / "METADATA").write_text(metadata)
        entry = f"[newllm.regularizers]\nextra-{number} = extra{number}:Extra\n"
        (info / "entry_points.txt").write_text(entry)
        (folder / f"extra{number}.py").write_text(SOURCES.get(number, "") + "class Extra: ...\n")


def seconds(arguments: list[str], folder: Path) -> float:
    """Wall time of one command with `folder` on the import path."""
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "newllm_cli", *arguments]
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def compare(arguments: list[str], runs: int, without: Path, with_plugins: Path) -> float:
    """Print both medians; their ratio."""
    times: dict[Path, list[float]] = {without: [], with_plugins: []}
    for folder in times:
        seconds(arguments, folder)  # writes caches
    for run in range(runs):
        for folder in (without, with_plugins) if run % 2 else (with_plugins, without):
            times[folder].append(seconds(arguments, folder))
    medians = [statistics.median(times[folder]) for folder in (without, with_plugins)]
    ratio = medians[1] / medians[0]
    print(
        f"newllm {' '.join(arguments)}: {medians[0]:.3f} s without plugins, {medians[1]:.3f} s "
        f"with {NUM_PLUGINS}; ratio {ratio:.3f}"
    )
    return ratio


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=21, help="runs of each, after one to warm up")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as empty, tempfile.TemporaryDirectory() as full:
        install(Path(full))
        ratio = compare(["--help"], runs, Path(empty), Path(full))
        compare(["plugins"], runs, Path(empty), Path(full))
    return int(ratio >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
