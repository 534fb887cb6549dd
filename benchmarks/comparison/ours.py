"""newllm itself as a contestant: its own pipeline, nothing of it written again."""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.comparison.budget import Budget, Setting
from benchmarks.comparison.contestant import Conditions
from benchmarks.comparison.sizing import require_size, solve_width
from benchmarks.peers.base import Peer
from newllm_core import settings
from newllm_core.checkpoint.format import Checkpoint, load
from newllm_core.config import Config
from newllm_core.data.prepared import PreparedDataset
from newllm_core.model.language_model import LanguageModel
from newllm_core.pipeline.runs import run_phase1, run_phase2
from newllm_core.runtime.precision import uses_bfloat16
from newllm_core.runtime.progress import Progress, Silent
from newllm_core.runtime.runlog import metrics_path

PRESET = "language-model"
UNTRAINED = "newllm"
FROM_PHASE1 = "newllm-phase1"


def recipe(file: str | None, vocab_size: int, parameters: int) -> Config:
    """The config of newllm's rows, of the wanted size.

    Args:
        file: TOML or `preset:NAME`; without `model.context_dim` it leaves the size open. None takes
            `PRESET` in the wanted size, with the share of contexts and embeddings that it has.
        vocab_size: of the data.
        parameters: wanted.

    Raises:
        ConfigError: the file cannot be used, or its model has another size.
    """
    given = settings.from_file(file or f"preset:{PRESET}")
    wide = 1
    if file is None:
        model = given["model"]
        wide = model.pop("context_dim") // model.pop("embed_dim")

    def at(width: int) -> Config:
        size = {"model": {"context_dim": wide * width, "embed_dim": width}}
        return settings.resolve(size, given)

    if "context_dim" not in given.get("model", {}):
        width = solve_width(
            lambda width: _count(at(width), vocab_size),
            parameters,
            what=UNTRAINED,
            steps=Peer.width_steps,
        )
        return at(width)
    config = settings.resolve(given)
    require_size(_count(config, vocab_size), parameters, what=file or UNTRAINED)
    return config


class Ours:
    """The context-vector model, fine-tuned from untrained blocks or from Phase 1."""

    def __init__(self, name: str, conditions: Conditions, folder: Path) -> None:
        self.name = name
        self.conditions = conditions
        self.folder = folder
        config = conditions.config
        self.parameters = _count(config, conditions.dataset.info.vocab_size)
        sections = settings.to_dict(config)
        kept = ["model", "cell", "phase2"]
        if name == FROM_PHASE1:
            kept += ["phase1", "objective", "regularizer"]
        self.identity: dict[str, Any] = {section: sections[section] for section in kept}
        narrow = uses_bfloat16(config.run, conditions.device)
        self.ways: Sequence[str] = ("bfloat16" if narrow else "float32",)

    def rate(self, way: str) -> float:
        """Of the second epoch of a few steps."""
        setting = Setting.make(learning_rate=1e-3, dropout=0.1)
        cut = self.conditions.cut()
        budget = Budget(2, len(cut.train.tokens))
        with tempfile.TemporaryDirectory() as folder:
            start = self._phase1(Path(folder) / "start.safetensors", 0, iterations=0)
            return self._phase2(start, cut, setting, 0, budget, Silent())["rates"][-1]

    def seconds_before(self, seed: int) -> float:
        """Of Phase 1, if that is where it starts."""
        if self.name == UNTRAINED:
            return 0.0
        return float(self._start(seed)[1])

    def train(self, setting: Setting, seed: int, tokens: int, way: str) -> dict[str, Any]:
        """Phase 2 from the start of this seed."""
        dataset = self.conditions.dataset
        budget = Budget.of(tokens, len(dataset.train.tokens))
        start, seconds = self._start(seed)
        figures = self._phase2(start, dataset, setting, seed, budget, self.conditions.progress)
        return figures | {"seconds_before": seconds}

    def _start(self, seed: int) -> tuple[Checkpoint, float]:
        """The checkpoint that Phase 2 starts from, and how long it took."""
        if self.name == UNTRAINED:
            with tempfile.TemporaryDirectory() as folder:
                return self._phase1(Path(folder) / "start.safetensors", seed, iterations=0), 0.0
        out = self.folder / f"phase1-{seed}.safetensors"
        timing = out.with_suffix(".json")
        wanted = {"config": self.identity, "data": self.conditions.dataset.hash}
        wanted = json.loads(json.dumps(wanted))
        if out.exists() and timing.exists():
            known = json.loads(timing.read_text(encoding="utf-8"))
            if known["of"] == wanted:
                return load(out), known["seconds"]
        begun = time.perf_counter()
        checkpoint = self._phase1(out, seed)
        seconds = time.perf_counter() - begun
        timing.write_text(json.dumps({"of": wanted, "seconds": seconds}), encoding="utf-8")
        return checkpoint, seconds

    def _phase1(self, out: Path, seed: int, iterations: int | None = None) -> Checkpoint:
        config = self.conditions.config
        phase1 = config.phase1
        if iterations is not None:
            phase1 = replace(phase1, max_iterations=iterations)
        return run_phase1(
            replace(config, run=replace(config.run, seed=seed), phase1=phase1),
            self.conditions.dataset,
            out,
            overwrite=True,
            device=self.conditions.device,
            progress=self.conditions.progress if iterations is None else Silent(),
        )

    def _phase2(
        self,
        start: Checkpoint,
        dataset: PreparedDataset,
        setting: Setting,
        seed: int,
        budget: Budget,
        progress: Progress,
    ) -> dict[str, Any]:
        config = self.conditions.config
        config = replace(
            config,
            run=replace(config.run, seed=seed),
            phase2=self.conditions.phase2(setting, budget),
        )
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "phase2.safetensors"
            trained = run_phase2(
                start,
                dataset,
                config,
                out,
                overwrite=False,
                device=self.conditions.device,
                progress=progress,
            )
            lines = metrics_path(out).read_text(encoding="utf-8").splitlines()
        return _figures(trained.results, [json.loads(line) for line in lines], config)


def _figures(
    results: Mapping[str, Any], events: list[dict[str, Any]], config: Config
) -> dict[str, Any]:
    """What `train_peer` returns, from the results and the log of Phase 2."""
    rates = [event["tokens_per_second"] for event in events if event["event"] == "speed"]
    steps = [event for event in events if event["event"] == "step"]
    read = config.phase2.max_tokens or 0
    streams = max(1, min(config.phase2.num_streams, read // config.phase2.bptt))
    of_step = read / -(-(read // streams) // config.phase2.bptt)
    validation = results["validation"]
    return {
        **{name: validation[name] for name in ("loss", "perplexity", "bits_per_byte")},
        "num_tokens": validation["num_tokens"],
        "best_epoch": results["best_epoch"],
        "epochs": len(rates),
        "tokens": len(rates) * read,
        "rates": rates,
        "curve": [
            [round(event["step"] * of_step), event["terms"]["cross-entropy"]] for event in steps
        ],
    }


def _count(config: Config, vocab_size: int) -> int:
    return LanguageModel(config.model, vocab_size, cell=config.cell).num_parameters()
