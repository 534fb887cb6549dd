"""newllm beside GRU, LSTM, minGRU, transformer and n-grams of the same size.

    newllm prepare --source wikitext --input wikitext-2 --test-fraction .05 --out wt
    python -m benchmarks.language_modelling --data wt --tokens 300000 --seconds 60 --threads 1

One table at equal tokens and one at equal time. Every neural model has the same number of
parameters (within 5 %), tied embeddings, the same optimizer, schedule shape, clipping and tokens
per step. Each is tuned for the table it stands in, on the tokens it reads there: learning rate, the
start of the embeddings (random, or counted from the tokens that are read), whether the head is
mixed with bigrams counted there and draws candidates, window, shape, both dropouts and weight
decay; one after another, with one seed, by validation text.
What is reported are runs with other seeds on test text.

At equal tokens everybody computes in float32; at equal time in the way that is fastest. Speed is
measured before, a round of everybody in turn, in seconds of the processor. Every finished run is
kept in `OUT/rows.jsonl`: the same command goes on where it was interrupted.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.script import exit_code

if TYPE_CHECKING:
    from benchmarks.comparison.comparison import Comparison

MODELS = ("newllm", "gru", "lstm", "mingru", "transformer", "ngram")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of newllm prepare, with a test split")
    add("--out", type=Path, default=Path("runs/language-modelling"), help="folder of results")
    add("--params", type=float, default=2e6, help="parameters of every neural model")
    add("--tokens", type=float, default=300_000, help="training tokens of the first table; 0: none")
    add("--seconds", type=float, help="training seconds of the second table; none by default")
    add("--models", nargs="+", choices=MODELS, default=MODELS, metavar="MODEL")
    add("--seeds", type=int, default=3, help="reported runs of every row")
    add("--threads", type=int, help="processor threads")
    add("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    add("--rounds", type=int, default=3, help="of the speed measurement")
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> "Comparison":
    """Open the data and build every contestant."""
    from benchmarks.comparison.cache import Cache
    from benchmarks.comparison.comparison import Comparison
    from benchmarks.comparison.contestant import Conditions, Contestant
    from benchmarks.comparison.counting import Ngram
    from benchmarks.comparison.neural import NeuralPeer
    from newllm_cli.progress import StderrProgress
    from newllm_core.config import RunConfig
    from newllm_core.data.prepared import open_dataset
    from newllm_core.runtime.device import prepare_device

    run = RunConfig(threads=options.threads, precision=options.precision)
    conditions = Conditions(
        dataset=open_dataset(options.data),
        run=run,
        parameters=int(options.params),
        device=prepare_device(run),
        progress=StderrProgress(),
    )
    conditions.test()  # refuses data without one before hours are spent
    contestants: list[Contestant] = [
        Ngram(conditions) if name == Ngram.name else NeuralPeer(name, conditions)
        for name in options.models
    ]
    return Comparison(contestants, conditions, Cache(options.out / "rows.jsonl"), options.rounds)


def run(options: argparse.Namespace) -> None:
    """Do what the options say; tables on stdout."""
    from benchmarks.comparison.report import table

    comparison = prepare(options)
    tokens, seeds = int(options.tokens), options.seeds
    if tokens:
        print(f"Bits per byte, {tokens:,} tokens each\n")
        print(table(comparison.compare(tokens=tokens, seeds=seeds)), flush=True)
    if options.seconds is not None:
        print(f"\nBits per byte, {options.seconds:g} s each\n")
        print(table(comparison.compare(seconds=options.seconds, seeds=seeds)), flush=True)


def main() -> int:
    """Run what the command line says."""
    return exit_code(lambda: run(parse()))


if __name__ == "__main__":
    sys.exit(main())
