"""What the kits share: losses and gradients, random numbers, parameters."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from newllm_core.errors import PluginError
from newllm_core.runtime.repeatable import require_finite
from newllm_core.testing.report import Failed

Module = TypeVar("Module", bound=nn.Module)
# Below this, a gradient or a difference in float64 is rounding.
NOTHING = 1e-9


def values(*shape: int, seed: int) -> Tensor:
    """Draw ordinary numbers, N(0, 1) in float64, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def scalar(loss: Tensor, what: str) -> Tensor:
    """Return the loss of `what`, and fail if it is no finite tensor without dimensions."""
    if not isinstance(loss, Tensor):
        raise Failed(f"the loss is {loss!r:.80}; return a tensor without dimensions")
    if loss.ndim:
        raise Failed(f"the loss has shape {list(loss.shape)}; reduce it, e.g. with .mean()")
    if not loss.isfinite():
        raise Failed(f"the loss is {loss.item()} for {what}")
    return loss


def gradient_of(loss: Tensor, contexts: Tensor, problem: str) -> Tensor:
    """Return the gradient for `contexts`, zeros where there is none; fail if it is not finite."""
    found = None
    if loss.requires_grad:
        (found,) = torch.autograd.grad(loss, contexts, allow_unused=True)
    if found is not None and not found.isfinite().all():
        raise Failed(problem)
    return torch.zeros_like(contexts) if found is None else found


@contextmanager
def no_global_numbers(
    what: str,
    advice: str = "draw in initialise from the generator it is given (generator=generator), and "
    "nowhere else",
) -> Iterator[None]:
    """Fail with `advice` if `what`, the body, draws from torch's global generator.

    The state of that generator is put back.
    """
    with torch.random.fork_rng(devices=[]):
        before = torch.get_rng_state()
        yield
        if not torch.equal(before, torch.get_rng_state()):
            raise Failed(
                f"{what} draws from torch's global generator, so a run cannot be repeated; {advice}"
            )


def check_initialise(
    make: Callable[[], Module], initialise: Callable[[Module, torch.Generator], object]
) -> None:
    """See that every parameter of what `make` makes comes from the generator `initialise` gets."""

    def drawn(seed: int) -> Mapping[str, Tensor]:
        module = make()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.fill_(float("nan"))
        with no_global_numbers("initialise"):
            initialise(module, torch.Generator().manual_seed(seed))
        return dict(module.named_parameters())

    first, again, other = drawn(0), drawn(0), drawn(1)
    left = [name for name, value in first.items() if value.isnan().any()]
    if left:
        raise Failed(f"it leaves {', '.join(left)} as it was; set every parameter")
    infinite = [name for name, value in first.items() if value.isinf().any()]
    if infinite:
        raise Failed(f"it makes {', '.join(infinite)} infinite; look for log or division at 0")
    unequal = [name for name, value in first.items() if not torch.equal(value, again[name])]
    if unequal:
        raise Failed(f"{', '.join(unequal)} differs for the same seed; draw from the generator")
    varied = [name for name, value in first.items() if value.unique().numel() > 1]
    if varied and all(torch.equal(first[name], other[name]) for name in varied):
        raise Failed(
            f"{', '.join(varied)} is the same for another seed; draw from the generator that "
            "initialise is given"
        )


def check_tensors(module: Module, call: Callable[[Module], object], what: str) -> None:
    """See that `module` has no other tensors, and `call`, which is `what`, changes none of them."""
    plain = [n for part in module.modules() for n, v in vars(part).items() if isinstance(v, Tensor)]
    if plain:
        raise Failed(
            f"{', '.join(plain)} is no parameter or buffer, and stays behind when the model moves "
            "to another device; use register_buffer"
        )
    try:
        require_finite(module, "it")
    except PluginError as error:
        raise Failed(str(error)) from error
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    call(module)
    after = module.state_dict()
    names = before | after
    if changed := [n for n in names if not (n in before and torch.equal(before[n], after[n]))]:
        raise Failed(f"{what} changes {', '.join(changed)}; keep nothing between two calls")


def check_parameter_gradients(module: nn.Module, loss: Tensor) -> None:
    """See that `loss` reaches every parameter of `module` with a finite gradient."""
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not parameters:
        return
    if not loss.requires_grad:
        raise Failed("nothing has a gradient; compute without detach() and no_grad()")
    gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    found = dict(zip(parameters, gradients, strict=True))
    unused = [name for name, value in found.items() if value is None]
    if unused:
        raise Failed(
            f"{', '.join(unused)} gets none; use it without detach(), or keep it in a buffer "
            "(register_buffer)"
        )
    wild = [name for name, value in found.items() if not value.isfinite().all()]
    if wild:
        raise Failed(
            f"that of {', '.join(wild)} is not finite; look for sqrt, log or division at 0"
        )


@torch.no_grad()
def moved(module: Module) -> Module:
    """Move every parameter a little: at its first value one may have no gradient, as at 0."""
    for seed, parameter in enumerate(module.parameters()):
        parameter.add_(0.1 * values(*parameter.shape, seed=seed).to(parameter.dtype))
    return module


def check_close(found: Tensor, exact: Tensor, tolerance: float, advice: str) -> None:
    """Fail with `advice` if two results differ by more than `tolerance` of the larger."""
    found, exact = found.detach().double(), exact.detach().double()
    error = (found - exact).abs().max().item()
    limit = tolerance * exact.abs().max().item() + NOTHING
    if not error <= limit:  # NaN is no agreement either
        raise Failed(f"a result is off by {error:.3g}, where {limit:.3g} is rounding; {advice}")
