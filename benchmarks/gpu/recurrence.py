"""The recurrence through time, forward and back: plain, as one CUDA graph, and compiled.

Shapes: B streams, T tokens of a window, C context_dim, E embed_dim.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.timing import Place, Row, row
from benchmarks.gpu.training import WORTH_ITS_LINES, preset, vocabulary
from newllm_core.model.language_model import LanguageModel

CASES = (("tiny", 64), ("language-model", 64), ("language-model", 1024))
Form = Callable[[Tensor, Tensor], Tensor]


class Unrolled(nn.Module):
    """The blocks of a model over a window, with nothing around them."""

    def __init__(
        self, model: LanguageModel, dtype: torch.dtype | None, *, keeps_rounded: bool = False
    ) -> None:
        super().__init__()
        self.blocks = model.blocks
        self.dtype = dtype
        self.keeps_rounded = keeps_rounded

    def forward(self, x_TBE: Tensor, context_BC: Tensor) -> Tensor:
        """Read the window: contexts [T, B, C]."""
        steps = []
        enabled, keeps = self.dtype is not None, self.keeps_rounded
        with torch.autocast(x_TBE.device.type, self.dtype, enabled=enabled, cache_enabled=keeps):
            for token in x_TBE.unbind(0):
                context_BC = self.blocks(context=context_BC, token=token)[-1][-1]
                steps.append(context_BC)
        return torch.stack(steps)


def forms(
    model: LanguageModel, dtype: torch.dtype | None, given: tuple[Tensor, Tensor]
) -> dict[str, Callable[[], Any]]:
    """Return what makes each form."""

    def graphed(*, keeps_rounded: bool) -> Any:  # noqa: ANN401
        # Nobody reads the token that leaves the last cell, nor the weights that make it.
        make: Any = torch.cuda.make_graphed_callables
        form = Unrolled(model, dtype, keeps_rounded=keeps_rounded)
        return make(form, given, allow_unused_input=True)

    def compiled() -> Any:  # noqa: ANN401
        form = Unrolled(model, dtype)
        return torch.compile(form, mode="reduce-overhead", dynamic=False)

    return {
        # As training runs it, with weights that are rounded once.
        "plain": partial(Unrolled, model, dtype, keeps_rounded=True),
        "graph": partial(graphed, keeps_rounded=False),
        "graph, rounded once": partial(graphed, keeps_rounded=True),
        "compiled": compiled,
    }


def recurrence(place: Place) -> Iterator[Row]:
    """Measure the plain form and graphs at the windows of the presets."""
    on_gpu = place.device.type == "cuda"
    yield from beside_plain(place, ["graph", "graph, rounded once"] if on_gpu else [])


def compiled_recurrence(place: Place) -> Iterator[Row]:
    """Measure the compiled form beside the plain one."""
    yield from beside_plain(place, ["compiled"])


def beside_plain(place: Place, labels: Sequence[str]) -> Iterator[Row]:
    """Measure the plain form, then others."""
    dtype = torch.bfloat16 if place.device.type == "cuda" else None
    for name, streams in CASES[: place.size(len(CASES), 2)]:
        config = preset(name, place)
        streams, length = place.size(streams, 2), place.size(16, 3)
        model = LanguageModel(config.model, vocabulary(place), cell=config.cell).to(place.device)
        model.requires_grad_(False).blocks.requires_grad_(True)
        x_TBE = torch.randn(length, streams, config.model.embed_dim, device=place.device)
        given = x_TBE.requires_grad_(), model.start(streams)
        plain_s = 0.0
        made = forms(model, dtype, given)
        for label in ("plain", *labels):
            begun = time.perf_counter()
            step = partial(forward_and_back, made[label](), *given, model)
            step()
            place.wait()
            first_s = time.perf_counter() - begun
            seconds = place.seconds_of(step)
            plain_s = plain_s or seconds
            case = f"{name} {streams} x {length}, {label}"
            yield row(case, 1e3 * seconds, "ms", first_call_seconds=first_s)
            if label != "plain":
                yield row("  plain over it", plain_s / seconds, "x", WORTH_ITS_LINES)


def forward_and_back(form: Form, x_TBE: Tensor, context_BC: Tensor, model: LanguageModel) -> None:
    """Compute contexts and every gradient."""
    model.zero_grad(set_to_none=True)
    x_TBE.grad = None
    form(x_TBE, context_BC).square().mean().backward()
