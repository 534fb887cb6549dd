"""Tensors of which this process may have a share only: those of a sharded model (DTensors)."""

from collections.abc import Callable

from torch import Tensor


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


def is_dtensor(tensor: Tensor) -> bool:
    """Say whether this process has a share of the tensor only (a DTensor)."""
    return hasattr(tensor, "full_tensor")
