"""newllm beside GRU, LSTM, transformer, minGRU and n-grams of the same size, in the same run.

    python -m benchmarks.language_modelling --data DIR --tokens 1000000 --seconds 120

Every neural model has the same number of parameters (within 5 %), tied embeddings, the same
optimizer, schedule shape, clipping and tokens per step, and is tuned over the same grid. `--ours`
names the recipe of newllm; steps and schedule of all models come from its `phase2` section.

Speed is measured first, a round of every model in turn, and matrix products are made in the way
that is fastest for each. Rows at equal time read as many tokens as that speed allows. Every
finished row is kept in `OUT/rows.jsonl`: the same command goes on where it was interrupted.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from newllm_core.errors import INTERRUPTED, ConfigError, UserError

if TYPE_CHECKING:
    from benchmarks.comparison.comparison import Comparison

MODELS = ("newllm", "newllm-phase1", "gru", "lstm", "transformer", "mingru", "ngram")
# Phase 1 reads the tokens several times without predicting any: asked for by name.
DEFAULT_MODELS = tuple(name for name in MODELS if name != "newllm-phase1")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of newllm prepare")
    add("--out", type=Path, default=Path("runs/language-modelling"), help="folder of results")
    add("--params", type=float, default=2e6, help="parameters of every neural model")
    add("--tokens", type=float, default=1e6, help="training tokens of rows at equal tokens")
    add("--seconds", type=float, help="training seconds of rows at equal time; none by default")
    add("--models", nargs="+", choices=MODELS, default=DEFAULT_MODELS, metavar="MODEL")
    add("--seeds", type=int, default=3, help="runs of every row")
    add("--grid", choices=("small", "full"), default="small", help="what tuning tries")
    add("--tune-tokens", type=float, help="training tokens of tuning; as --tokens by default")
    add("--ours", metavar="FILE", help="recipe of newllm: TOML, or preset:NAME")
    add("--context", type=int, default=128, help="window of the transformer")
    add("--threads", type=int, help="processor threads")
    add("--rounds", type=int, default=5, help="of the speed measurement")
    add("--measure", action="store_true", help="measure speed (again), and nothing else")
    single = parser.add_argument_group("a single row, at --tokens or else --seconds")
    single.add_argument("--only", choices=MODELS, metavar="MODEL")
    single.add_argument("--lr", type=float)
    single.add_argument("--dropout", type=float)
    single.add_argument("--order", type=int, help="of n-grams")
    single.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def prepare(options: argparse.Namespace) -> "Comparison":
    """Open the data and build every contestant."""
    from dataclasses import replace

    from benchmarks.comparison.cache import Cache
    from benchmarks.comparison.comparison import Comparison
    from benchmarks.comparison.contestant import Conditions, Contestant
    from benchmarks.comparison.counting import Ngram
    from benchmarks.comparison.neural import PEERS, NeuralPeer
    from benchmarks.comparison.ours import Ours, recipe
    from newllm_cli.progress import StderrProgress
    from newllm_core.data.prepared import open_dataset
    from newllm_core.runtime.device import prepare_device

    dataset = open_dataset(options.data)
    config = recipe(options.ours, dataset.info.vocab_size, int(options.params))
    if options.threads is not None:
        config = replace(config, run=replace(config.run, threads=options.threads))
    conditions = Conditions(
        dataset=dataset,
        config=config,
        parameters=int(options.params),
        context=options.context,
        device=prepare_device(config.run),
        progress=StderrProgress(),
    )

    def contestant(name: str) -> Contestant:
        if name == Ngram.name:
            return Ngram(conditions)
        if name in PEERS:
            return NeuralPeer(name, conditions)
        return Ours(name, conditions, options.out)

    names = [options.only] if options.only else options.models
    cache = Cache(options.out / "rows.jsonl")
    return Comparison([contestant(name) for name in names], conditions, cache, options.rounds)


def single_row(comparison: "Comparison", options: argparse.Namespace) -> dict[str, Any]:
    """The row that `--only` asks for."""
    from benchmarks.comparison.budget import Setting

    contestant = comparison.contestants[0]
    if options.only == "ngram":
        wanted = {"order": options.order}
    else:
        wanted = {"learning_rate": options.lr, "dropout": options.dropout}
    if None in wanted.values():
        raise ConfigError("--only needs --lr and --dropout, or --order for ngram")
    comparison.measure()
    tokens = int(options.tokens)
    if options.seconds is not None:
        tokens = comparison.tokens_in(contestant, options.seconds, options.seed)
    figures = comparison.row(contestant, Setting.make(**wanted), options.seed, tokens)
    return {"name": contestant.name, **wanted, "seed": options.seed, **figures}


def run(options: argparse.Namespace) -> None:
    """Do what the options say; results on stdout."""
    from benchmarks.comparison.report import charts, table, write_svg
    from newllm_core.files.atomic import write_atomically

    comparison = prepare(options)
    if options.measure:
        comparison.measure(again=True)
        speeds = {who.name: comparison.rates(who) for who in comparison.contestants}
        print(json.dumps(speeds, indent=2))
        return
    if options.only:
        print(json.dumps(single_row(comparison, options)))
        return
    tokens, seconds = int(options.tokens), options.seconds
    tune_tokens = int(options.tune_tokens or tokens)
    models = comparison.compare(
        tokens=tokens,
        seconds=seconds,
        seeds=options.seeds,
        grid=options.grid,
        tune_tokens=tune_tokens,
    )
    train = comparison.conditions.dataset.info.train
    report = {
        "schema": 1,
        "data": {"path": str(options.data), "hash": comparison.conditions.dataset.hash},
        "tokens": tokens,
        "seconds": seconds,
        "seeds": options.seeds,
        "grid": options.grid,
        "tune_tokens": tune_tokens,
        "models": models,
    }
    text = json.dumps(report, indent=2) + "\n"
    write_atomically(
        options.out / "results.json", lambda path: path.write_text(text, encoding="utf-8")
    )
    write_svg(
        charts(models, bytes_per_token=train.bytes / train.tokens), options.out / "curves.svg"
    )
    print(table(models, tokens=tokens, seconds=seconds))


def main() -> int:
    """Run; a mistake of the user is one line."""
    try:
        run(parse())
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last finished row", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
