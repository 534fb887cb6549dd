"""How fast `newllm prepare` is beside `tokenizers.encode_batch` alone, and its peak memory.

    python benchmarks/prepare.py --megabytes 200
    python benchmarks/prepare.py --megabytes 2000 --text train.txt --rounds 1

A text of that size is made by shuffling the lines of `--text` (the documentation inside Python, if
left out) into documents. In every round it is prepared with a trained BPE and with that BPE given,
and encoded by `encode_batch` with the same BPE in a process of its own, whose clock runs only
during the calls. Rates are medians. Memory is that of all processes of the command together.
"""

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from newllm_core.data.sources.python_docs import PythonDocs

SEPARATOR = "\n\n"
LINES = (2, 30)
RAW = """
import sys, time
from tokenizers import Tokenizer
tokenizer, path = Tokenizer.from_file(sys.argv[1]), sys.argv[2]
tokenizer.post_processor = None
spent, rest = 0.0, ""
with open(path, encoding="utf-8", newline="") as file:
    while chunk := file.read(1 << 22):
        *documents, rest = (rest + chunk).split("\\n\\n")
        began = time.perf_counter()
        tokenizer.encode_batch(documents, add_special_tokens=False)
        spent += time.perf_counter() - began
print(spent)
"""


def write_text(path: Path, source: list[str], size: int, seed: int) -> None:
    """Documents of shuffled lines, so many bytes together."""
    chance = random.Random(seed)
    written = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        while written < size:
            lines = chance.choices(source, k=chance.randint(*LINES))
            written += len("\n".join(lines).encode("utf-8")) + len(SEPARATOR)
            file.write("\n".join(lines) + SEPARATOR)


def run(command: list[str]) -> tuple[float, int, str]:
    """Wall seconds, peak bytes of memory of the process and its children, and stdout."""
    peak = 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def watch() -> None:
        nonlocal peak
        while process.returncode is None:
            peak = max(peak, sum(map(_memory, family(process.pid))))
            time.sleep(0.02)

    began = time.perf_counter()
    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    seconds = time.perf_counter() - began
    watcher.join()
    if process.returncode:
        sys.exit(process.returncode)
    return seconds, peak, out


def family(pid: int) -> Iterator[int]:
    """A process and everything below it."""
    yield pid
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                yield from family(int(child))
        except OSError:  # it ended
            continue


def _memory(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def measure(folder: Path, text: Path, rounds: int) -> dict[str, Any]:
    """Every figure of the report."""
    size = text.stat().st_size
    command = [sys.executable, "-m", "newllm_cli", "prepare", "--source", "text-file"]
    command += ["--input", str(text), "--document-separator", r"\n\n", "--overwrite", "--json"]
    tokenizer = folder / "trained" / "tokenizer.json"
    seconds: dict[str, list[float]] = {"raw": [], "trained": [], "given": []}
    peak = 0
    for _ in range(rounds):
        for name in ("trained", "given"):
            given = ["--tokenizer", str(tokenizer)] if name == "given" else []
            spent, memory, _ = run([*command, *given, "--out", str(folder / name)])
            seconds[name].append(spent)
            peak = max(peak, memory)
        seconds["raw"].append(float(run([sys.executable, "-c", RAW, str(tokenizer), str(text)])[2]))
    rates = {name: size / statistics.median(found) / 1e6 for name, found in seconds.items()}
    return {
        "bytes": size,
        "processors": len(os.sched_getaffinity(0)),
        "megabytes_per_second": rates,
        "ratio_to_raw": {name: rates[name] / rates["raw"] for name in ("trained", "given")},
        "peak_megabytes": peak / 1e6,
    }


def main() -> None:
    """Make the text, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--megabytes", type=int, default=200, help="size of the text")
    add("--text", type=Path, nargs="*", default=[], help="UTF-8 files whose lines are shuffled")
    add("--rounds", type=int, default=3, help="how often everything is measured")
    add("--folder", type=Path, help="where files go for the while; the system's by default")
    add("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    if options.text:
        texts = [path.read_text(encoding="utf-8") for path in options.text]
    else:
        texts = [document.text or "" for document in PythonDocs().documents()]
    source = [line for text in texts for line in text.split("\n") if line.strip()]
    folder = Path(tempfile.mkdtemp(prefix="newllm-prepare-", dir=options.folder))
    try:
        text = folder / "text.txt"
        write_text(text, source, options.megabytes * 10**6, seed=0)
        report = measure(folder, text, options.rounds)
    finally:
        shutil.rmtree(folder)
    if options.json:
        print(json.dumps(report, indent=1))
        return
    rates, ratios = report["megabytes_per_second"], report["ratio_to_raw"]
    print(f"{report['bytes']:,} bytes, {report['processors']} processors")
    print(f"encode_batch alone:          {rates['raw']:6.2f} MB/s")
    for name in ("given", "trained"):
        ratio = f"{ratios[name]:.2f} of encode_batch"
        print(f"prepare, tokenizer {name:<8}: {rates[name]:6.2f} MB/s, {ratio}")
    print(f"peak memory of prepare:      {report['peak_megabytes']:6.0f} MB")


if __name__ == "__main__":
    main()
