"""The recurrence through time, forward and back: plain, as one CUDA graph, and compiled.

A fast form is worth its lines from 1.15 times the plain one on.

Shapes: B streams, T tokens of a window, C context_dim, E embed_dim.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.gpu.timing import Place, Row, row
from benchmarks.gpu.training import preset, vocabulary
from newllm_core.model.language_model import LanguageModel

WORTH_ITS_LINES = 1.15
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
    model: LanguageModel, dtype: torch.dtype | None, given: tuple[Tensor, Tensor], *, on_gpu: bool
) -> dict[str, Callable[[], Any]]:
    """Return what makes each form; a processor has the plain one only."""

    def graphed() -> Any:  # noqa: ANN401
        # Nobody reads the token that leaves the last cell, nor the weights that make it.
        make: Any = torch.cuda.make_graphed_callables
        return make(Unrolled(model, dtype), given, allow_unused_input=True)

    def compiled() -> Any:  # noqa: ANN401
        return torch.compile(Unrolled(model, dtype), mode="reduce-overhead")

    # As training runs it, with weights that are rounded once; a graph may not keep them.
    plain = partial(Unrolled, model, dtype, keeps_rounded=True)
    # The compiled one last: it needs a compiler and may fail for want of one.
    on_gpus = {"graph": graphed, "compiled": compiled} if on_gpu else {}
    return {"plain": plain, **on_gpus}


def recurrence(place: Place) -> Iterator[Row]:
    """Measure every form at the windows of the presets."""
    on_gpu = place.device.type == "cuda"
    dtype = torch.bfloat16 if on_gpu else None
    for name, streams in (("tiny", 64), ("language-model", 64), ("language-model", 1024)):
        config = preset(name, place)
        streams, length = place.size(streams, 2), place.size(16, 3)
        model = LanguageModel(config.model, vocabulary(place), cell=config.cell).to(place.device)
        model.requires_grad_(False).blocks.requires_grad_(True)
        x_TBE = torch.randn(length, streams, config.model.embed_dim, device=place.device)
        given = x_TBE.requires_grad_(), model.start(streams)
        plain_s = 0.0
        for label, make in forms(model, dtype, given, on_gpu=on_gpu).items():
            begun = time.perf_counter()
            step = partial(forward_and_back, make(), *given, model)
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
