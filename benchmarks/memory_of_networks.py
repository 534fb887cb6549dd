"""What training does to memory: recurrent networks trained on the same tokens, each examined.

    python -m benchmarks.memory_of_networks --data wt [--tokens 300000] [--out runs/memory]

GRU, LSTM, minGRU and newllm's mogrifier are peers of `benchmarks.language_modelling`, of the same
size, trained through time. `tiny` is newllm's default model, four ways: untrained blocks or those
of Phase 1, frozen under heads or trained on with them. All read the tokens once, untuned. Figures
are those of validation text, all of it for bits per byte, and probes of it for memory; `start` is
the same network before training. OUT/memory.html has the charts, OUT/networks.jsonl every report:
the same command does not train again what stands there.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import newllm_core as newllm
from benchmarks.comparison.budget import Budget
from benchmarks.comparison.cache import Cache
from benchmarks.comparison.contestant import Conditions
from benchmarks.comparison.neural import NeuralPeer, phase2
from benchmarks.comparison.reading import bits_per_byte
from benchmarks.comparison.training import train_peer
from benchmarks.peers.base import Peer, State
from benchmarks.phase1_recipes import FIGURES
from benchmarks.script import exit_code
from newllm_cli.progress import StderrProgress
from newllm_core.analysis import examine
from newllm_core.analysis.report.chart import Chart, Series
from newllm_core.analysis.report.charts import ROLES, split_charts
from newllm_core.analysis.report.figures import number
from newllm_core.analysis.report.html import card, chart_grid, page, table
from newllm_core.config import RunConfig
from newllm_core.data.prepared import PreparedDataset, open_dataset
from newllm_core.runtime.device import prepare_device

Row = dict[str, Any]

# Names and the shapes of `benchmarks.peers`.
PEERS = {
    "GRU": ("gru", "2"),
    "LSTM": ("lstm", "2"),
    "minGRU": ("mingru", None),
    "mogrifier": ("newllm", "mogrifier 1"),
}
# Whether Phase 1 trains the blocks, and whether Phase 2 leaves them.
WAYS = {
    "tiny, untrained, frozen": (False, True),
    "tiny, Phase 1, frozen": (True, True),
    "tiny, untrained, through time": (False, False),
    "tiny, Phase 1, through time": (True, False),
}
COLUMNS = {
    "ER/D": FIGURES["ER/D"],
    "λ": FIGURES["exponent"],
    "tokens remembered": FIGURES["tokens remembered"],
}


def main() -> None:
    """Train and examine what is missing, print the table, write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--data", type=Path, required=True, help="folder of newllm prepare")
    add("--out", type=Path, default=Path("runs/memory"), help="folder of results")
    add("--tokens", type=int, default=300_000, help="training tokens of every network")
    add("--params", type=int, default=2_000_000, help="parameters of every peer")
    add("--networks", nargs="+", choices=[*PEERS, *WAYS], default=[*PEERS, *WAYS], metavar="NAME")
    add("--seed", type=int, default=0)
    add("--threads", type=int)
    options = parser.parse_args()
    dataset = open_dataset(options.data)
    decided = {"tokens": options.tokens, "params": options.params, "seed": options.seed}
    cache, rows = Cache(options.out / "networks.jsonl"), {}
    for name in options.networks:
        key = {"network": name, "data": dataset.info.hash, **decided}
        if (row := cache.get(key)) is None:
            row = _of_peer(name, dataset, options) if name in PEERS else _of_tiny(name, options)
            cache.add(key, row)
        rows[name] = row
    print(_printed(rows))
    (options.out / "memory.html").write_text(_page(rows), "utf-8")


def _of_peer(name: str, dataset: PreparedDataset, options: argparse.Namespace) -> Row:
    """Train a peer; it is examined through its own step."""
    kind, shape = PEERS[name]
    run = RunConfig(threads=options.threads)
    progress = StderrProgress()
    conditions = Conditions(dataset, run, options.params, prepare_device(run), progress)
    contestant = NeuralPeer(kind, conditions)
    setting = contestant.start | ({"shape": shape} if shape else {})
    peer = contestant.build(setting, options.seed)
    config = phase2(setting, Budget(1, options.tokens))
    begun = _examined(peer, dataset, options.seed)
    train_peer(
        peer,
        dataset,
        config,
        validation=None,
        way="float32",
        seed=options.seed,
        progress=progress,
    )
    peer.eval()
    bits = bits_per_byte(
        peer,
        dataset.validation,
        end_id=int(dataset.info.end_id),
        way="float32",
        context=config.bptt,
        progress=progress,
    )
    parameters = contestant.identity(setting)["parameters"]
    after = _examined(peer, dataset, options.seed)
    return {"parameters": parameters, "bits_per_byte": bits, "start": begun, "after": after}


def _examined(peer: Peer, dataset: PreparedDataset, seed: int) -> dict[str, Any]:
    def step(state: State, ids_B: Tensor) -> State:
        return peer(ids_B[:, None], state)[1]

    texts: Any = tuple(np.asarray(split.tokens) for split in (dataset.train, dataset.validation))
    peer.eval()
    found: dict[str, Any] = examine(step, texts, start=peer.start(1), seed=seed)["validation"]
    return found


def _of_tiny(name: str, options: argparse.Namespace) -> Row:
    """Train newllm's default model one of the four ways."""
    trained, frozen = WAYS[name]
    common: dict[str, Any] = {"data": options.data, "overwrite": True, "seed": options.seed}
    common |= {"threads": options.threads, "progress": StderrProgress()}
    start = newllm.phase1(
        out=options.out / "start.safetensors",
        max_tokens=options.tokens,
        **(common if trained else common | {"max_iterations": 0}),
    )
    heads = newllm.phase2(
        start,
        out=options.out / "heads.safetensors",
        max_tokens=options.tokens,
        epochs=1,
        freeze_context=frozen,
        untrained_blocks=not trained,
        **common,
    )
    before = start.analyze(seed=options.seed)
    begun = before["random_control"] if trained else before
    results = heads.checkpoint.results
    assert results is not None, "heads were trained"
    return {
        "parameters": sum(p.numel() for p in heads.model.parameters()),
        "bits_per_byte": results["validation"]["bits_per_byte"],
        "start": begun["validation"],
        "after": heads.analyze(seed=options.seed)["validation"],
    }


def _printed(rows: Mapping[str, Row]) -> str:
    head = ["network", "parameters", "bits per byte"]
    head += [f"{name}{when}" for name in COLUMNS for when in (" at the start", "")]
    lines = [head, ["---"] * len(head)]
    for name, row in rows.items():
        cells = [name, f"{row['parameters']:,}", f"{row['bits_per_byte']:.3f}"]
        for figure in COLUMNS.values():
            cells += [f"{figure(row['start']):.2f}", f"{figure(row['after']):.2f}"]
        lines.append(cells)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _page(rows: Mapping[str, Row]) -> str:
    names = list(rows)
    columns = {name: (rows[name]["after"], ROLES[k]) for k, name in enumerate(names)}
    front = Chart(
        key="front",
        title="What is remembered, and what it is worth",
        caption="Tokens that a linear probe reads back from the state, against bits per byte.",
        x_label="tokens remembered",
        y_label="bits per byte",
        zero=False,
        counts=False,
        series=[
            Series(
                name,
                [COLUMNS["tokens remembered"](row["after"])],
                [row["bits_per_byte"]],
                ROLES[k],
                markers=True,
            )
            for k, (name, row) in enumerate(rows.items())
        ],
    )
    cells = [
        [
            name,
            number(row["parameters"]),
            number(row["bits_per_byte"]),
            *(number(figure(row["after"])) for figure in COLUMNS.values()),
        ]
        for name, row in rows.items()
    ]
    heading = ["network", "parameters", "bits per byte", *COLUMNS]
    charts = [front, *(chart for chart in split_charts(columns) if not chart.empty)]
    body = ["<h1>What training does to memory</h1>", card(table(heading, cells))]
    return page("What training does to memory", "\n".join([*body, chart_grid(charts)]))


if __name__ == "__main__":
    sys.exit(exit_code(main))
