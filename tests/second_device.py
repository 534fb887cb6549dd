"""A second device in the memory of this process, for tests of what must run on any.

Its tensors hold one of the processor each, and compute with it: results are exact. As on CUDA they
meet no tensor of the processor in an operation (but numbers, element by element), are read only
once they are copied, and draw from generators of their own, whose states no other device takes.
"""

from contextlib import nullcontext
from functools import cache, partial
from typing import ClassVar, NamedTuple

import torch
from torch.utils import backend_registration

NAME = "second"
CPU = torch.device("cpu")
# Beside CUDA it would be asked for memory that is pinned.
IS_POSSIBLE = not torch.cuda.is_available() and hasattr(
    backend_registration, "_setup_privateuseone_for_python_backend"
)
# What makes tensors from none: all else in PyTorch is made of these.
FACTORIES = (
    *("empty.memory_format", "empty_strided", "arange", "arange.start", "arange.start_step"),
    *("linspace", "eye", "eye.m"),
    *("randperm", "randperm.generator", "tril_indices", "triu_indices"),
)
BETWEEN_DEVICES = {"aten::_to_copy", "aten::copy_", "aten::to"}
INDEXING = {"aten::_unsafe_index", "aten::index", "aten::index_put", "aten::index_put_"}
# Where they are: PyTorch hands on other objects than it was given.
OWN_GENERATORS = set()
# Under autocast on CUDA: products, and what is computed in float32.
NARROW = ("addmm", "addmv", "baddbmm", "bmm", "linear", "matmul", "mm", "mv")
WIDE = (
    *("exp", "expm1", "layer_norm", "log", "log1p", "mse_loss", "nll_loss", "norm.Scalar"),
    *("pow.Tensor_Scalar", "pow.Tensor_Tensor", "reciprocal", "rsqrt", "softplus"),
    *("cumprod", "cumsum", "linalg_vector_norm", "log_softmax.int", "softmax.int", "sum"),
    *("prod", "sum.dim_IntList", "native_layer_norm"),
)


class Held(torch.Tensor):
    """A tensor of the second device; `held` is the one of the processor.

    Types that it has not are `refused`, as MPS refuses float64.
    """

    refused: ClassVar[set[torch.dtype]] = set()

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held):
        if held.dtype in cls.refused:
            raise TypeError(f"the second device has no {held.dtype}")
        # Tensors like this one do not know inference mode.
        known = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        with known:
            made = torch.Tensor._make_wrapper_subclass(
                cls,
                held.shape,
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                device=f"{NAME}:0",
            )
        made.held = held
        return made

    def __repr__(self):
        return f"{self.held!r} of the second device"

    def tolist(self):
        """Wait for the device, and copy."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        known = known_of(function)
        given = (*args, *kwargs.values())
        written = [args[i] if i < len(args) else kwargs[name] for i, name in known.written]
        if known.name not in BETWEEN_DEVICES:
            refuse_mixture(known, args, given, written)
        there = {name: to_processor(value) for name, value in kwargs.items()}
        result = function(*map(to_processor, args), **there)
        if known.written:  # what was given comes back, not another tensor that holds the same
            if not known.num_returned:
                return None
            return written[0] if known.num_returned == 1 else tuple(written)
        return result if CPU in [v for v in given if type(v) is torch.device] else to_second(result)


class Known(NamedTuple):
    """What the schema of an operation says, asked once; `written` has (place, name) each."""

    name: str
    written: list
    num_returned: int
    takes_numbers: bool
    draws: bool


@cache
def known_of(function):
    """Read the schema of an operation."""
    schema = function._schema
    infos = enumerate((a.name, a.alias_info) for a in schema.arguments)
    written = [(i, name) for i, (name, info) in infos if info is not None and info.is_write]
    takes_numbers = torch.Tag.pointwise in function.tags or schema.name in INDEXING
    draws = any("Generator" in str(argument.type) for argument in schema.arguments)
    return Known(schema.name, written, len(schema.returns), takes_numbers, draws)


def refuse_mixture(known, args, given, written):
    """Fail as CUDA does; numbers to compute with may be the processor's, and so may indices."""
    if known.name in INDEXING and isinstance(args[0], Held):
        given = (args[0], *given[2:])
    others = [*others_in(given)]
    if others and not (known.takes_numbers and not any(other.dim() for other in others)):
        raise RuntimeError(f"{known.name}: expected all tensors to be on the same device")
    if [*others_in(written)]:
        raise RuntimeError(f"{known.name}: expected what is written to be on the second device")
    if known.draws:
        require_own_generators(given)


def require_own_generators(values):
    """Fail as CUDA does where another device's generator is to draw."""
    generators = [value for value in values if isinstance(value, torch._C.Generator)]
    if any(generator._cdata not in OWN_GENERATORS for generator in generators):
        raise RuntimeError(f"expected a generator of device type {NAME!r}")


def others_in(values):
    """Find tensors of the processor, in lists too."""
    for value in values:
        kind = type(value)  # asked for every operation there is: `isinstance` takes three times
        if kind is list or kind is tuple:
            yield from others_in(value)
        elif kind is not Held and issubclass(kind, torch.Tensor):
            yield value


def to_processor(value):
    """Return what a tensor of the second device holds."""
    kind = type(value)
    if kind is Held:
        return value.held
    if kind is torch.device:
        return CPU
    return kind(map(to_processor, value)) if kind is list or kind is tuple else value


def to_second(value):
    """Let a tensor of the processor be one of the second device."""
    if isinstance(value, torch.Tensor):
        return Held(value)
    return type(value)(map(to_second, value)) if isinstance(value, list | tuple) else value


class Generator(torch.Generator):
    """The processor's, and of the second device one whose state is longer."""

    def __new__(cls, device=CPU):
        made = super().__new__(cls, CPU)
        made.longer = 16 if torch.device(device).type == NAME else 0
        (OWN_GENERATORS.add if made.longer else OWN_GENERATORS.discard)(made._cdata)
        return made

    def get_state(self):
        return torch.nn.functional.pad(super().get_state(), (0, self.longer))

    def set_state(self, state):
        own = super().get_state()
        if len(state) != len(own) + self.longer:
            raise RuntimeError("RNG state is wrong size")
        super().set_state(state[: len(own)].clone())
        return self


def factory(function):
    """Make with `function` what the second device is asked for."""

    def make(*args, **kwargs):
        require_own_generators(kwargs.values())
        return Held(function(*args, **kwargs | {"device": CPU}))

    return make


def copy_from(source, target, non_blocking=False):
    """Copy between devices."""
    to_processor(target).copy_(to_processor(source))
    return target


def casting(function, of, to):
    """Give `function` the numbers of type `of` in the type that `to` says, as autocast does."""

    def cast(value):
        fits = isinstance(value, torch.Tensor) and value.dtype is of()
        return value.to(to()) if fits else value

    def compute(*args, **kwargs):
        args, kwargs = map(cast, args), {name: cast(value) for name, value in kwargs.items()}
        with torch.autocast(NAME, enabled=False):
            return function(*args, **kwargs)

    return compute


def find(name):
    """Return the operation of PyTorch."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def register():
    """Tell PyTorch of the device; it stays while what is returned does."""
    backend_registration._setup_privateuseone_for_python_backend(NAME)
    torch.get_device_module(NAME).get_amp_supported_dtype = lambda: [torch.bfloat16]
    library, others = torch.library.Library("aten", "IMPL"), torch.library.Library("_", "IMPL")
    for name in FACTORIES:
        library.impl(name, factory(find(name)), "PrivateUse1")
    library.impl("_copy_from", copy_from, "PrivateUse1")
    others.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
    narrow = partial(torch.get_autocast_dtype, NAME)
    wide = partial(getattr, torch, "float32")
    for names, of, to in ((NARROW, wide, narrow), (WIDE, narrow, wide)):
        for name in names:
            library.impl(name, casting(find(name), of, to), "AutocastPrivateUse1")
    return library, others
