"""Text from the last head, one token at a time: the memory is one context, however long it gets."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from newllm_core.errors import ConfigError, InputError
from newllm_core.model.language_model import LanguageModel


def generate(
    model: LanguageModel,
    prompt_ids: Sequence[int],
    *,
    num_tokens: int,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float = 1.0,
    seed: int = 0,
    end_id: int | None = None,
) -> Iterator[int]:
    """Continue a prompt; yields each token as soon as it is chosen.

    Args:
        model: on the device to compute on.
        prompt_ids: what comes before.
        num_tokens: at most so many tokens.
        temperature: divides the logits; 0 always takes the most likely token.
        top_k: choose among the k most likely tokens only.
        top_p: choose among the fewest most likely tokens with this much probability together.
        seed: of the choices.
        end_id: closes a document: it is read before the prompt, as in training, and the text ends
            where it is chosen (it is not yielded).

    Raises:
        ConfigError: a temperature, top_k or top_p that means nothing.
        InputError: an empty prompt without `end_id`, or ids outside the vocabulary.
    """
    if not 0 <= temperature < float("inf"):
        raise ConfigError(f"temperature is {temperature}: it must be 0 (greedy) or more")
    if top_k is not None and top_k < 1:
        raise ConfigError(f"top_k is {top_k}: at least 1")
    if not 0 < top_p <= 1:
        raise ConfigError(f"top_p is {top_p}: above 0, at most 1")
    ids = [*([] if end_id is None else [end_id]), *prompt_ids]
    if not ids:
        raise InputError("the prompt is empty: give at least one token")
    if not 0 <= min(ids) <= max(ids) < model.vocab_size:
        raise InputError(f"the prompt holds ids outside the vocabulary of {model.vocab_size}")
    return _continue(model, ids, num_tokens, temperature, top_k, top_p, seed, end_id)


def _continue(
    model: LanguageModel,
    ids: list[int],
    num_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float,
    seed: int,
    end_id: int | None,
) -> Iterator[int]:
    generator = torch.Generator().manual_seed(seed)
    context_1C = model.start(1)
    for token in ids:
        context_1C = _read(model, context_1C, token)
    for _ in range(num_tokens):
        token = choose(_logits(model, context_1C), temperature, top_k, top_p, generator)
        if token == end_id:
            return
        yield token
        context_1C = _read(model, context_1C, token)


def choose(
    logits_V: Tensor,
    temperature: float,
    top_k: int | None,
    top_p: float,
    generator: torch.Generator,
) -> int:
    """Draw a token id from logits [V]; ties go to the smaller id."""
    if temperature == 0:
        return int(logits_V.argmax())
    sorted_V, order_V = logits_V.sort(descending=True, stable=True)
    # The largest logit becomes 0 first: a tiny temperature must not make infinities.
    scaled_V = (sorted_V - sorted_V[0])[:top_k] / temperature
    probabilities_V = scaled_V.softmax(-1)
    before_V = probabilities_V.cumsum(-1) - probabilities_V
    kept_V = probabilities_V * (before_V < top_p)
    return int(order_V[torch.multinomial(kept_V, 1, generator=generator)])


# `no_grad` is inside these, not around the loop: across a `yield` it would leak to the caller.
@torch.no_grad()
def _read(model: LanguageModel, context_1C: Tensor, token: int) -> Tensor:
    ids = torch.tensor([token], device=context_1C.device)
    return model.step(context=context_1C, token=model.embed(ids))[-1]


@torch.no_grad()
def _logits(model: LanguageModel, context_1C: Tensor) -> Tensor:
    return model.token_output[-1](context_1C)[0].double().cpu()
