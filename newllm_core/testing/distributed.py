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
SMALL = 1e-6
LOSS = "the loss"
GRADIENT = "the gradient"


def check_distributed(
    regularizer: type[Regularizer],
    options: Any,  # noqa: ANN401
    contexts_ND: Tensor,
    tokens_N: Tensor,
) -> None:
    """Compare loss, statistics and gradient of a process group with those of one process.

    The shares of the processes differ in size, and in a second call one of them is empty. The
    processes import the class, so it must be in a module they find.
    """
    with tempfile.TemporaryDirectory(prefix="newllm-") as folder:
        arguments = (Path(folder), regularizer, options, contexts_ND, tokens_N)
        mp.spawn(_process, args=arguments, nprocs=PROCESSES)
        for case, bounds in enumerate(_shares(len(contexts_ND))):
            alone = _state_after(regularizer, options, contexts_ND, tokens_N)
            expected_gradient = alone.pop(GRADIENT)
            for rank in range(PROCESSES):
                found = load_file(Path(folder) / f"{case}-{rank}.safetensors")
                # The gradients of processes are averaged, so each is that many times as large.
                gradient = found.pop(GRADIENT) / PROCESSES
                _compare(found, alone)
                own = slice(bounds[rank], bounds[rank + 1])
                _compare({GRADIENT: gradient}, {GRADIENT: expected_gradient[own]})


def _compare(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        if not value.numel():
            continue
        difference = (found[name] - value).abs().max().item()
        if not difference <= TOLERANCE * (value.abs().max().item() + SMALL):
            raise Failed(
                f"in a process of {PROCESSES}, {name} differs by {difference:g} from that of one "
                "process with all contexts; take sums and means over processes with "
                "newllm_core.parallel.collectives, or declare distributed = False"
            )


def _shares(length: int) -> list[list[int]]:
    """Where the shares of the processes begin and end."""
    return [[0, length * 2 // 3, length], [0, length, length]]


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
    for case, bounds in enumerate(_shares(len(contexts_ND))):
        own = slice(bounds[rank], bounds[rank + 1])
        state = _state_after(regularizer, options, contexts_ND[own], tokens_N[own])
        save_file(state, folder / f"{case}-{rank}.safetensors")
    dist.barrier()  # whoever leaves first would cut off the others
    dist.destroy_process_group()


def _state_after(
    regularizer: type[Regularizer],
    options: Any,  # noqa: ANN401
    contexts_ND: Tensor,
    tokens_N: Tensor,
) -> dict[str, Tensor]:
    made = regularizer(contexts_ND.shape[1], options)
    contexts_ND = contexts_ND.clone().requires_grad_()
    loss = made(contexts_ND, tokens_N=tokens_N)
    found = torch.zeros_like(contexts_ND)
    if loss.requires_grad:
        (gradient,) = torch.autograd.grad(loss, contexts_ND, allow_unused=True)
        found = found if gradient is None else gradient
    state = {LOSS: loss.detach(), GRADIENT: found} | made.state_dict()
    return {name: value.double().contiguous() for name, value in state.items()}
