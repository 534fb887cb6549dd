"""Text that is generated and text that is predicted.

Shapes: B streams, C context_dim.
"""

import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu.timing import Place, Row, row
from benchmarks.gpu.training import preset, vocabulary
from newllm_core.evaluation.splits import score
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.precision import products_in
from newllm_core.runtime.progress import Silent
from newllm_core.trajectory.text import contexts_of_text

# Of WikiText-2 with 8,192 types.
BYTES_PER_TOKEN = 3.9
TEXT_BYTES = 10_000_000


def generation(place: Place) -> Iterator[Row]:
    """Measure `tiny`: read a token, make logits, draw; everything stays on the device."""
    config = preset("tiny", place)
    model = LanguageModel(config.model, vocabulary(place), cell=config.cell).to(place.device)
    for streams in (1, 64, 1024):
        context_BC = model.start(streams)
        last_B = torch.zeros(streams, dtype=torch.int64, device=place.device)

        def token(place_in_text: list[Tensor]) -> None:
            context_BC, last_B = place_in_text
            with model.narrow_products(len(last_B)):
                context_BC = model.step(context=context_BC, token=model.embed(last_B))[-1]
                logits_BV = model.predict(model.heads()[-1], context_BC, last_B).float()
            chances_BV = logits_BV.softmax(-1)
            # The first of exponential races that ends: `multinomial` without its checks.
            drawn_B = (chances_BV / torch.empty_like(chances_BV).exponential_()).argmax(-1)
            place_in_text[:] = context_BC, drawn_B

        state = [context_BC, last_B]
        with products_in(model, config.run, place.device), torch.inference_mode():
            seconds = place.seconds_of(lambda: token(state))  # noqa: B023
        bar = 500_000 if streams == 1024 else None
        yield row(f"tiny, {streams:,} texts at once", streams / seconds, "tokens/s", bar)


def evaluation(place: Place) -> Iterator[Row]:
    """Measure how fast a text of 10 MB is predicted."""
    config = preset("tiny", place)
    model = LanguageModel(config.model, vocabulary(place), cell=config.cell).to(place.device)
    count = place.size(int(TEXT_BYTES / BYTES_PER_TOKEN), 100)
    tokens = np.random.default_rng(0).integers(0, vocabulary(place), count)
    place.begin_memory()
    with products_in(model, config.run, place.device), Silent().task("", count, "tokens") as task:
        score(model, contexts_of_text(model, tokens[:2000], end_id=0), task)
        begun = time.perf_counter()
        score(model, contexts_of_text(model, tokens, end_id=0), task)
        seconds = time.perf_counter() - begun
    yield row(f"tiny, {count:,} tokens", count / seconds, "tokens/s", memory=place.memory())
