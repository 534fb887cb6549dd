"""Several processes that train one model (`torchrun`): what each reads, and how they add up.

Every process holds the whole model, makes the same steps, and reads its share of each batch. The
mean of the processes' losses is the loss of the whole batch, and that of their gradients its
gradient. Started without torchrun there is one process, and nothing here costs anything.

Shapes: N rows of all processes, n rows of this one, D columns.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from newllm_core.errors import ProcessLost


def size() -> int:
    """Return how many processes there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return which one this is; the first is 0: it writes and prints."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """Inside, the processes that torchrun started know each other."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    backend = "nccl" if device.type == "cuda" else "gloo"
    with reaching_others():
        dist.init_process_group(backend)
        barrier()  # one that ends at once would keep others from getting here
    try:
        yield
    except BaseException:
        if backend == "gloo":  # NCCL's end would wait for processes that wait for this one
            dist.destroy_process_group()
        raise
    dist.destroy_process_group()


def rows_per_rank(length: int) -> list[int]:
    """How many of `length` things each process takes: neighbours, shares that differ by one."""
    least, longer = divmod(length, size())
    return [least + (number < longer) for number in range(size())]


def own(rows: Sequence[int]) -> slice:
    """Return where this process's share is, given the size of each."""
    begin = sum(rows[: rank()])
    return slice(begin, begin + rows[rank()])


def share_of_mean(own_mean: Tensor, rows: Sequence[int]) -> Tensor:
    """Return this process's share of a loss of all rows: the mean of the shares is that loss.

    Nothing is sent; gradients, which are averaged too, are those of the loss.
    """
    if size() == 1:
        return own_mean
    count = rows[rank()]
    # The mean of no rows is not a number; their sum is zero, and still leads back to the model.
    own_mean = own_mean if count else own_mean.nan_to_num(0.0)
    return own_mean * (count / sum(rows)) * size()


def gather(values_nD: Tensor, rows: Sequence[int]) -> Tensor:
    """Return the rows [N, D] of all processes in their order, with gradient.

    Every process must make the same of them, as it does of a loss.
    """
    if size() == 1:
        return values_nD
    return _Gather.apply(values_nD, rows)


def average_gradients(parameters: Sequence[nn.Parameter], also: Sequence[Tensor] = ()) -> None:
    """Make every gradient, and every tensor of `also`, its mean over processes.

    DistributedDataParallel is for a module that is called once per step. Here layers are called
    hundreds of times, heads not at all. One message, since each costs a core about a millisecond:
    several that overlap with the backward pass were slower.
    """
    if size() == 1:
        return
    # Those of sharded parameters are means already.
    parameters = [p for p in parameters if p.requires_grad and not is_dtensor(p)]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    average([*(p.grad for p in parameters if p.grad is not None), *also])


def gradient_norm(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the norm of all gradients together, some of which may be divided among processes."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros((), device=parameters[0].device)
    norms = [full_tensor(nn.utils.get_total_norm(alike)) for alike in by_sharding(gradients)]
    return norms[0] if len(norms) == 1 else nn.utils.get_total_norm(norms)


def average(tensors: Sequence[Tensor]) -> None:
    """Replace every tensor by its mean over processes."""
    if size() == 1:
        return
    for tensor, summed in zip(tensors, _sums(tensors), strict=True):
        tensor.copy_(summed / size())


def any_process(*flags: bool) -> list[bool]:
    """Of each of `flags`, whether it is set in any process."""
    if size() == 1:
        return list(flags)
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"  # where messages must be
    (counts,) = _sums([torch.tensor(flags, dtype=torch.float32, device=device)])
    return [count > 0 for count in counts.tolist()]


def alike(told: str) -> bool:
    """Say whether every process tells the same; as a barrier, it waits for all of them."""
    digest = hashlib.sha256(told.encode()).digest()
    bits = [bool(byte >> place & 1) for byte in digest for place in range(8)]
    # Who lacks a bit of another sees it; who has one that others lack is seen by them.
    (differs,) = any_process(any_process(*bits) != bits)
    return not differs


def barrier() -> None:
    """Wait until every process is here."""
    any_process(False)


def _sums(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the sum of each over processes, in one message."""
    if not tensors:
        return []
    with reaching_others():
        message = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(message)
    parts = message.split([tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for tensor, part in zip(tensors, parts, strict=True)]


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values_nD: Tensor, rows: Sequence[int]) -> Tensor:  # noqa: ANN401
        ctx.own = own(rows)
        most = max(rows)  # messages have one size
        filled = values_nD.new_zeros(most - len(values_nD), *values_nD.shape[1:])
        sent = torch.cat([values_nD, filled])
        received = [torch.empty_like(sent) for _ in rows]
        with reaching_others():
            dist.all_gather(received, sent)
        return torch.cat([part[:count] for part, count in zip(received, rows, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401
        return grad_ND[ctx.own] * size(), None


@contextmanager
def reaching_others(*marks: str) -> Iterator[None]:
    """Turn errors, of `marks` only those with one of them, into `ProcessLost` around messages."""
    try:
        yield
    except (RuntimeError, OSError) as error:
        if marks and not any(mark in str(error) for mark in marks):
            raise
        reason = str(error).strip().splitlines()[0][:200]
        raise ProcessLost(
            f"process {rank()} of {size()} cannot reach another one, which has ended or is cut off "
            f"({reason})"
        ) from error


def full_tensor(tensor: Tensor) -> Tensor:
    """Return all of a tensor that may be divided; every process must ask."""
    gather: Callable[[], Tensor] | None = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def shard_like(model: Tensor, tensor: Tensor) -> Tensor:
    """Return the share of a whole `tensor` that fits `model`, which may be divided."""
    if not is_dtensor(model):
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(model, DTensor)
    tensor = tensor.to(model.device)
    # Every process has the whole: nothing needs to be sent.
    return distribute_tensor(tensor, model.device_mesh, model.placements, src_data_rank=None)


def by_sharding(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Divide tensors into those of sharded modules and the others; torch mixes no two kinds."""
    kinds = [t for t in tensors if is_dtensor(t)], [t for t in tensors if not is_dtensor(t)]
    return [alike for alike in kinds if alike]


def is_dtensor(tensor: Tensor) -> bool:
    """Say whether this process has a share of the tensor only (a DTensor)."""
    return hasattr(tensor, "full_tensor")
