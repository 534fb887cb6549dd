"""Small runs in processes of their own, which tests can stop as they like.

Processes are forked from a server that has loaded torch already, so that starting one is quick.
"""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch.distributed import TCPStore

from newllm_core import settings
from newllm_core.checkpoint import format as checkpoints
from newllm_core.data.prepared import open_dataset
from newllm_core.errors import UserError
from newllm_core.parallel.collectives import process_group
from newllm_core.pipeline.runs import run_phase1, run_phase2
from newllm_core.runtime.progress import Silent
from newllm_core.runtime.runlog import metrics_path
from newllm_core.training.resume import Output
from tests.few import FEW
from tests.forked import SERVER
from tests.open_gate import OPEN_GATE

MEETING_PLACES: list[TCPStore] = []  # one that nobody holds is closed
COMMON = {
    "run": {"threads": 1, "precision": "float32"},
    "model": {
        "context_dim": 16,
        "embed_dim": 16,
        "slow_dims": 2,
        "slow_decays": (0.8,),
        "delay_dims": 4,
        "delay_tokens": 2,
        "head_hidden": 12,
        "head_reads_token": True,
    },
    "analysis": FEW["analysis"] | {"dynamics_steps": 16, "memory_lags": 2},
    "gate": OPEN_GATE,
}
# Several windows, batches and epochs each; dropout and statistics so that no state is trivial.
PHASE1 = {
    "max_tokens": 3000,
    "max_iterations": 3,
    "later_iterations": 3,
    "exact_stream_tokens": 32,
    "convergence_tokens": 64,
    "convergence_steps": 16,
}
STREAMS = {"window_tokens": 1500, "engine": "streams", "num_streams": 16, "chunk_steps": 8}
PHASE2 = {"epochs": 2, "num_streams": 8, "bptt": 16, "batch_tokens": 100, "max_tokens": 2000}
CASES = {
    "parallel": {"phase1": PHASE1 | {"window_tokens": 1800}},
    "streams": {"phase1": PHASE1 | STREAMS},
    "online": {"phase1": PHASE1 | {"engine": "online", "max_tokens": 80, "window_tokens": 50}},
    "twins": {
        "phase1": PHASE1 | {"window_tokens": 1800, "objective": "cvfp"},
        "objective": {"teacher": "same-weights"},
    },
    "frozen": {
        "phase2": PHASE2
        | {
            "freeze_context": True,
            "head_dropout": 0.2,
            "candidates": 32,
            "candidates_share": 0.6,
        }
    },
    "fine-tuned": {"phase2": PHASE2},
    "without-dropout": {"phase2": PHASE2 | {"dropout": 0.0}},
    "another-objective": {
        "phase2": PHASE2
        | {"objective": "reconstruction", "objective_weight": 0.1, "candidates": 16}
    },
}


def train(case, home, out, *, resume=True, overwrite=False, progress=None, device="cpu", **layers):
    """The run of `case`; `home` holds the data and, for Phase 2, a checkpoint to start from."""
    config = settings.resolve(COMMON, CASES[case], layers)
    output = Output(out, overwrite, resume, progress=progress or Silent())
    device = torch.device(device)
    dataset = open_dataset(home / "data")
    if "phase1" in CASES[case]:
        return run_phase1(config, dataset, output, device=device)
    base = checkpoints.load(home / "base.safetensors", device=device)
    return run_phase2(base, dataset, config, output, device=device)


def start(case, home, out, **layers):
    """`train` in another process."""
    process = SERVER.Process(target=child, args=(case, home, out, layers))
    process.start()
    return process


def child(case, home, out, layers):
    """What the process of `start` does: errors become exit codes."""
    torch.set_num_threads(1)
    try:
        train(case, Path(home), Path(out), **layers)
    except UserError as error:
        print(f"newllm: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def start_together(case, home, out, *, target=None, **layers):
    """`train` in two processes of one run, as `torchrun` would start them."""
    processes = [
        SERVER.Process(target=member, args=(address, target or child, case, home, out, layers))
        for address in addresses()
    ]
    for process in processes:
        process.start()
    return processes


def addresses():
    """What `torchrun` tells the first and the second of two processes; this one is their agent.

    A port that is found free here and opened by the first process later may be taken in between.
    """
    MEETING_PLACES.append(TCPStore("localhost", 0, is_master=True, wait_for_workers=False))
    both = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(MEETING_PLACES[-1].port)}
    both |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    return [both | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


def member(address, target, case, home, out, layers):
    os.environ |= address
    with process_group(torch.device("cpu")):
        target(case, home, out, layers)


def ended(processes):
    """Their exit codes, once all have ended; None for one that does not, which is then killed."""
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()  # the tests would wait for it at their end
    return codes


def content(path):
    """Metadata and tensors of a checkpoint, but for how often its run was saved and checked."""
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
        metadata["config"] = json.loads(metadata["config"])
        for name in ("save_interval_seconds", "check_interval_steps"):
            del metadata["config"]["run"][name]
        del metadata["content_hash"]
        return metadata, {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def metrics(out):
    """The lines of a run's log; how fast it was is nobody's result."""
    lines = map(json.loads, metrics_path(out).read_text().splitlines())
    return [
        line | {"tokens_per_second": None} if line["event"] == "speed" else line for line in lines
    ]


def losses(line):
    """Every loss of a line: what steps at the same global batch must agree on."""
    found = {}
    for place in ("sweep_terms", "validation_terms"):
        found |= {f"{place}.{name}": value for name, value in line.get(place, {}).items()}
    for split in ("train", "validation"):
        if split in line:
            found[split] = line[split]["loss"]
    return found


def same_losses(found, expected):
    assert [line["event"] for line in found] == [line["event"] for line in expected]
    compared = 0
    for one, other in zip(found, expected, strict=True):
        assert losses(one) == pytest.approx(losses(other), abs=1e-5)
        compared += len(losses(one))
    assert compared > 5


def names(folder):
    return sorted(item.name for item in folder.iterdir())
