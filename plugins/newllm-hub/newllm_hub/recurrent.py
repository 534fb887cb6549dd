"""Recurrent language models of Transformers, opened for `newllm analyze FOLDER`.

A model is read token by token through its own cache: the tensors in it are the state, whatever
holds them. A cache that grows with the text is no state, and its model is refused.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.foreign.base import Foreign, Network
from newllm_core.analysis.stepped import Step
from newllm_core.errors import ConfigError, InputError, reason
from newllm_hub.folder import COMPANION

# Names under which models return and take their cache; the first one that a model has is used.
CACHES = ("cache", "state", "cache_params", "past_key_values")
# RWKV begins with the logarithm of nothing, written -1e38 or so: exp() of this is 0 too.
LEAST = -1e4
PreTrained = Any  # a model of Transformers, which is imported when one is opened


class TransformersFolder(Foreign):
    """A folder that `save_pretrained` wrote."""

    def open(
        self, path: Path, *, embedding: str | None, seed: int, device: torch.device
    ) -> Network:
        """Open the folder, its tokenizer and its untrained twin: same config, new weights.

        Raises:
            ConfigError: Transformers is not installed.
            InputError: it is no such folder, or the model's cache grows with the text.
        """
        try:
            from transformers import AutoConfig, AutoModel, logging
        except ImportError as error:
            raise ConfigError(
                "Transformers is not installed: pip install 'newllm-hub[transformers]'"
            ) from error
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        if (path / COMPANION).exists():
            raise InputError(
                f"{path} is an exported newllm model: newllm import {path} --out FILE makes the "
                "checkpoint to analyse"
            )
        try:
            # Code that a folder brings along is not run, nor asked for on the terminal.
            given = {"local_files_only": True, "trust_remote_code": False}
            config = AutoConfig.from_pretrained(path, **given)
            model = AutoModel.from_pretrained(path, **given)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise InputError(f"cannot load {path} with Transformers: {reason(error)}") from error
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            untrained = AutoModel.from_config(config)
        for network in (model, untrained):
            network.to(device).eval().requires_grad_(False)
        template = _template(model, path)
        start = _start(model, template)
        # Some models, such as RWKV in Transformers 5.24, mix the streams of a batch.
        make = cached_step if _keeps_streams_apart(model, template, start) else one_by_one
        encode, text = _tokenizer(path)
        return Network(
            step=make(model, template),
            control=make(untrained, template),
            start=start,
            parameters=sum(p.numel() for p in model.parameters()),
            vocab_size=model.get_input_embeddings().weight.shape[0],
            encode=encode,
            text=text,
        )


def cached_step(model: PreTrained, template: Any) -> Step:  # noqa: ANN401 - a cache of any make
    """Return the step of a model: its state is a tuple of the tensors in its cache.

    Args:
        model: called with one token of each stream and the cache before it.
        template: a cache after some token, of batch one.
    """
    name, held = template

    def step(state: tuple[Tensor, ...], ids: Tensor) -> tuple[Tensor, ...]:
        # Copies, because models write into their cache.
        before = _with_tensors(held, (tensor.clone() for tensor in state))
        after = model(input_ids=ids[:, None], use_cache=True, **{name: before})
        return tuple(_tensors(getattr(after, name)))

    return step


def one_by_one(model: PreTrained, template: Any) -> Step:  # noqa: ANN401 - as `cached_step`
    """Return the same step, which reads every stream alone."""
    step = cached_step(model, template)

    def each(state: tuple[Tensor, ...], ids: Tensor) -> tuple[Tensor, ...]:
        rows = [
            step(tuple(tensor[i : i + 1] for tensor in state), ids[i : i + 1])
            for i in range(len(ids))
        ]
        return tuple(torch.cat(tensors) for tensors in zip(*rows, strict=True))

    return each


@torch.no_grad()
def _keeps_streams_apart(
    model: PreTrained, template: tuple[str, Any], start: tuple[Tensor, ...]
) -> bool:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids = torch.tensor([0, min(1, vocabulary - 1)], device=start[0].device)
    ends = []
    for make in (cached_step, one_by_one):
        step, state = make(model, template), tuple(t.repeat_interleave(2, 0) for t in start)
        try:
            for read in (ids, ids.flip(0), ids):
                state = step(state, read)
        except (RuntimeError, ValueError):  # shapes that do not fit each other
            return False
        ends.append(state)
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(*ends, strict=True))


@torch.no_grad()
def _template(model: PreTrained, path: Path) -> tuple[str, Any]:
    """Return what a model calls its cache, and one that it made of a token."""
    ids = torch.zeros(1, 1, dtype=torch.long, device=model.get_input_embeddings().weight.device)
    kind = model.config.model_type
    once, twice = (model(input_ids=ids.repeat(1, n), use_cache=True) for n in (1, 2))
    name = next((n for n in CACHES if getattr(once, n, None) is not None), None)
    if name is None:
        raise InputError(f"{path} ({kind}) keeps no cache: it is no recurrence that can be stepped")
    shapes = [[tensor.shape for tensor in _tensors(getattr(x, name))] for x in (once, twice)]
    if shapes[0] != shapes[1] or not shapes[0]:
        raise InputError(
            f"{path} ({kind}) keeps something of every token: a cache that grows with the text is "
            "no state of fixed size, so there is nothing to examine"
        )
    return name, getattr(once, name)


@torch.no_grad()
def _start(model: PreTrained, template: tuple[str, Any]) -> tuple[Tensor, ...]:
    """Return the state before any token: zeros, if the model begins so, or that of a token."""
    one = tuple(_tensors(template[1]))
    zero = [torch.zeros_like(tensor) for tensor in one]
    if model.config.model_type == "rwkv":
        zero[-1] = torch.full_like(zero[-1], LEAST)
    ids = torch.zeros(1, dtype=torch.long, device=one[0].device)
    stepped = cached_step(model, template)(tuple(zero), ids)
    same = all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(stepped, one, strict=True)
    )
    return tuple(zero) if same else one


def _tokenizer(
    path: Path,
) -> tuple[Callable[[str], list[int]] | None, Callable[[int], str] | None]:
    from transformers import AutoTokenizer

    if not any((path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return None, None
    try:
        given = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(path, **given)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise InputError(f"cannot load the tokenizer of {path}: {reason(error)}") from error

    def encode(text: str) -> list[int]:
        return list(tokenizer(text, verbose=False)["input_ids"])

    return encode, lambda token: str(tokenizer.decode([token]))


def _parts(part: Any) -> dict[Any, Any]:  # noqa: ANN401 - anything in a cache
    if isinstance(part, Mapping):
        return dict(part)
    if isinstance(part, list | tuple):
        return dict(enumerate(part))
    ours = type(part).__module__.startswith("transformers")
    return dict(vars(part)) if ours and hasattr(part, "__dict__") else {}


def _is_state(part: Any) -> bool:  # noqa: ANN401 - anything in a cache
    return isinstance(part, Tensor) and part.is_floating_point() and part.ndim > 1


def _tensors(part: Any) -> Iterator[Tensor]:  # noqa: ANN401 - anything in a cache
    if _is_state(part):
        yield part
        return
    for inner in _parts(part).values():
        yield from _tensors(inner)


def _with_tensors(part: Any, tensors: Iterator[Tensor]) -> Any:  # noqa: ANN401 - the same
    """Return a copy of a cache that holds other tensors, in the order of `_tensors`."""
    if _is_state(part):
        return next(tensors)
    inner = {key: _with_tensors(value, tensors) for key, value in _parts(part).items()}
    if not inner:
        return part
    kind: Any = type(part)
    if isinstance(part, Mapping):
        return kind(inner)
    if isinstance(part, list | tuple):
        return kind(inner.values())
    made = copy.copy(part)
    vars(made).update(inner)
    return made
