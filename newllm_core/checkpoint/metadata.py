"""What the metadata of a checkpoint must look like, so that nothing stumbles over it later.

Every function returns its value, or raises `ValueError` with the place that is wrong.
"""

from typing import Any

from newllm_core.files.strict_json import is_number, parse_json

PHASES = ("phase1", "phase2", "expand")
SPLITS = ("train", "validation")
# Of an entry of the history: figures by name, and figures alone. Others may be anything.
NAMED_FIGURES = (
    "sweep_terms",
    "validation_terms",
    "gradient_norms",
    "converged_ratio",
    "effective_rank_ratio",
    "mean_cosine",
    "norm_ratio",
)
FIGURES = ("window", "iteration", "learning_rate", "weight_change")
GATE_FIGURES = (
    "drift",
    "converged",
    "effective_rank_ratio",
    "mean_cosine",
    "norm_ratio",
    "live_dimensions",
    "step_cosine",
    "token_cosine",
    "lyapunov_exponent",
    "tokens_remembered",
)
RESULT_FIGURES = (
    *("loss", "perplexity", "accuracy"),
    *("bits_per_byte", "bits_per_character", "word_perplexity"),
)
PLUGIN_TEXTS = ("kind", "name", "distribution", "version")


def history(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON value, here and below
    """Return a mapping for every iteration; figures may be None."""
    for number, entry in enumerate(_list(value, "history")):
        where = f"history[{number}]"
        _mapping(entry, where)
        for key in NAMED_FIGURES:
            for name, figure in _mapping(entry.get(key) or {}, f"{where}.{key}").items():
                _figure(figure, f"{where}.{key}.{name}")
        for key in FIGURES:
            _figure(entry.get(key), f"{where}.{key}")
    return value


def vacuous_terms(value: Any) -> list[str]:  # noqa: ANN401
    """Return names of loss terms."""
    for term in _list(value, "vacuous_terms"):
        _text(term, "vacuous_terms")
    return value


def gate(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return every figure of the gate, for each split that was measured."""
    for split in SPLITS:
        if split in _mapping(value, "gate"):
            figures = _mapping(value[split], f"gate.{split}")
            for name in GATE_FIGURES:
                _figure(figures[name], f"gate.{split}.{name}")
            for name in ("num_tokens", "context_dim"):
                if type(figures.get(name)) is not int or figures[name] < 1:
                    raise ValueError(f"gate.{split}.{name} is no count")
    return value


def results(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return empty, or the figures of both splits."""
    for split in SPLITS if _mapping(value, "results") else ():
        figures = _mapping(value.get(split), f"results.{split}")
        for name in RESULT_FIGURES:
            _figure(figures.get(name), f"results.{split}.{name}")
    return value


def provenance(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return plugins as `plugin_record` has them, and where the data was; both may be left out."""
    records = _list(_mapping(value, "provenance").get("plugins", []), "plugins")
    for number, record in enumerate(records):
        for key in PLUGIN_TEXTS:
            _text(_mapping(record, f"plugins[{number}]").get(key), f"plugins[{number}].{key}")
    _text(value.get("dataset_path", ""), "dataset_path")
    return value


STRUCTURED = {
    "history": history,
    "vacuous_terms": vacuous_terms,
    "gate": gate,
    "results": results,
    "provenance": provenance,
}


def structured(metadata: dict[str, str]) -> dict[str, Any]:
    """Return the parsed and checked entries of `STRUCTURED`."""
    return {name: check(parse_json(metadata[name])) for name, check in STRUCTURED.items()}


def model_shape(metadata: dict[str, str]) -> dict[str, Any]:
    """Return `vocab_size`, `num_heads`, `seed` and `warmup`."""
    shape = _mapping(parse_json(metadata["model"]), "model")
    for name, least in (("vocab_size", 1), ("num_heads", 1), ("warmup", 0), ("seed", None)):
        value = shape[name]
        if type(value) is not int or (least is not None and value < least):
            raise ValueError(f"model.{name} is {value!r}")
    return shape


def phase(metadata: dict[str, str]) -> str:
    """Return the command that wrote the checkpoint."""
    if metadata["phase"] not in PHASES:
        raise ValueError(f"phase is {metadata['phase']!r}")
    return metadata["phase"]


def _mapping(value: Any, where: str) -> dict[str, Any]:  # noqa: ANN401
    if not isinstance(value, dict):
        raise ValueError(f"{where} is no mapping")
    return value


def _list(value: Any, where: str) -> list[Any]:  # noqa: ANN401
    if not isinstance(value, list):
        raise ValueError(f"{where} is no list")
    return value


def _text(value: Any, where: str) -> None:  # noqa: ANN401
    if not isinstance(value, str):
        raise ValueError(f"{where} is no text")


def _figure(value: Any, where: str) -> None:  # noqa: ANN401
    if value is not None and not is_number(value):
        raise ValueError(f"{where} is no number")
