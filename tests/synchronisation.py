"""Counts what would make a processor wait for a GPU."""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Values that the processor asks for, and results whose size only the device knows.
WAITING = {
    "_local_scalar_dense",
    "_unique",
    "_unique2",
    "equal",
    "isin",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
INDEXING = {"_index_put_impl_", "_unsafe_index", "index", "index_put", "index_put_"}
TO_HOST = {torch.Tensor.cpu, torch.Tensor.tolist}


class _Operations(TorchDispatchMode):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = function._schema.name.removeprefix("aten::")
        waits = name in WAITING
        waits |= name == "repeat_interleave" and function._overloadname == "Tensor"
        if name in INDEXING:
            masks = [i for i in args[1] if i is not None and i.dtype in (torch.bool, torch.uint8)]
            waits |= bool(masks)
        # A copy between devices; pinned memory is copied behind one's back.
        if name == "_to_copy" and not kwargs.get("non_blocking"):
            waits |= kwargs.get("device", args[0].device).type != args[0].device.type
        if name == "copy_" and args[2:3] != (True,):
            waits |= args[0].device.type != args[1].device.type
        if not waits:
            return function(*args, **kwargs)
        self.found.append(name)
        watch("default")
        try:
            return function(*args, **kwargs)
        finally:
            watch("error")


class _Methods(TorchFunctionMode):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in TO_HOST:
            self.found.append(function.__name__)
        return function(*args, **(kwargs or {}))


def watch(mode):
    """Set what CUDA does where the processor waits for it."""
    if torch.cuda.is_available():
        torch.cuda.set_sync_debug_mode(mode)


@contextmanager
def waits():
    """Lists what waits for the device in the block; on CUDA anything else that does is an error."""
    found = []
    watch("error")
    try:
        with _Operations(found), _Methods(found):
            yield found
    finally:
        watch("default")
