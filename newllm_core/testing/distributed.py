"""Two processes with half of the contexts each must report the loss of all of them."""

import tempfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from torch import Tensor

from newllm_core.regularizers.base import Regularizer
from newllm_core.testing.report import Failed

PROCESSES = 2
TOLERANCE = 1e-4


def check_distributed(
    regularizer: type[Regularizer],
    options: Any,  # noqa: ANN401
    contexts_ND: Tensor,
    tokens_N: Tensor,
) -> None:
    """Compare the loss and the statistics of a process group with those of one process.

    The processes import the class, so it must be in a module they find.
    """
    even = len(contexts_ND) - len(contexts_ND) % PROCESSES
    contexts_ND, tokens_N = contexts_ND[:even], tokens_N[:even]
    alone = _state_after(regularizer, options, contexts_ND, tokens_N)
    with tempfile.TemporaryDirectory(prefix="newllm-") as folder:
        arguments = (Path(folder), regularizer, options, contexts_ND, tokens_N)
        mp.spawn(_process, args=arguments, nprocs=PROCESSES)
        for rank in range(PROCESSES):
            found = load_file(Path(folder) / f"{rank}.safetensors")
            for name, expected in alone.items():
                difference = (found[name] - expected).abs().max().item()
                if difference > TOLERANCE * (expected.abs().max().item() + 1):
                    raise Failed(
                        f"in a process of {PROCESSES}, {name} differs by {difference:g} from that "
                        "of one process with all contexts; average the statistics over processes "
                        "(torch.distributed.nn.functional.all_reduce), or declare "
                        "distributed = False"
                    )


def _process(
    rank: int,
    folder: Path,
    regularizer: type[Regularizer],
    options: Any,  # noqa: ANN401
    contexts_ND: Tensor,
    tokens_N: Tensor,
) -> None:
    torch.set_num_threads(1)
    method = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=method, rank=rank, world_size=PROCESSES)
    own = slice(rank * len(contexts_ND) // PROCESSES, (rank + 1) * len(contexts_ND) // PROCESSES)
    state = _state_after(regularizer, options, contexts_ND[own], tokens_N[own])
    save_file(state, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


def _state_after(
    regularizer: type[Regularizer],
    options: Any,  # noqa: ANN401
    contexts_ND: Tensor,
    tokens_N: Tensor,
) -> dict[str, Tensor]:
    made = regularizer(contexts_ND.shape[1], options)
    loss = made(contexts_ND, tokens_N=tokens_N)
    state = {"the loss": loss.detach()} | made.state_dict()
    return {name: value.double().contiguous() for name, value in state.items()}
