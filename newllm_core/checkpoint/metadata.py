"""What the metadata of a checkpoint must look like, so that nothing stumbles over it later.

Every function returns its value, or raises `ValueError` with the place that is wrong.
"""

from collections.abc import Callable, Iterable
from typing import Any

from newllm_core.files.strict_json import is_number, parse_json

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
KINDS: dict[type, str] = {dict: "mapping", list: "list", str: "text"}


def history(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - any JSON value, here and below
    """Return a mapping for every iteration; figures may be None."""
    for number, entry in enumerate(_require(value, list, "history")):
        where = f"history[{number}]"
        _require(entry, dict, where)
        for key in NAMED_FIGURES:
            figures = _require(entry.get(key) or {}, dict, f"{where}.{key}")
            _require_figures(figures, figures, f"{where}.{key}")
        _require_figures(entry, FIGURES, where)
    return value


def vacuous_terms(value: Any) -> list[str]:  # noqa: ANN401
    """Return names of loss terms."""
    for term in _require(value, list, "vacuous_terms"):
        _require(term, str, "vacuous_terms")
    return value


def gate(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return every figure of the gate, for each split that was measured.

    Older versions had those of `GATE_FIGURES`; there may be others.
    """
    for split in SPLITS:
        if split in _require(value, dict, "gate"):
            figures = _require(value[split], dict, f"gate.{split}")
            wanted = {name: figures[name] for name in GATE_FIGURES} | figures
            _require_figures(wanted, wanted, f"gate.{split}")
            for name in ("num_tokens", "context_dim"):
                if type(figures.get(name)) is not int or figures[name] < 1:
                    raise ValueError(f"gate.{split}.{name} is no count")
    return value


def results(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return empty, or the figures of both splits."""
    for split in SPLITS if _require(value, dict, "results") else ():
        figures = _require(value.get(split), dict, f"results.{split}")
        _require_figures(figures, RESULT_FIGURES, f"results.{split}")
    return value


def provenance(value: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return plugins and where the data was, as `provenance` has them; both may be left out."""
    records = _require(value, dict, "provenance").get("plugins", [])
    for number, record in enumerate(_require(records, list, "plugins")):
        _require(record, dict, f"plugins[{number}]")
        for key in PLUGIN_TEXTS:
            _require(record.get(key), str, f"plugins[{number}].{key}")
    _require(value.get("dataset_path", ""), str, "dataset_path")
    return value


STRUCTURED: dict[str, Callable[[Any], Any]] = {
    "history": history,
    "vacuous_terms": vacuous_terms,
    "gate": gate,
    "results": results,
    "provenance": provenance,
}


def model_shape(metadata: dict[str, str]) -> dict[str, Any]:
    """Return `vocab_size`, `num_heads`, `seed` and `warmup`."""
    shape = _require(parse_json(metadata["model"]), dict, "model")
    for name, least in (("vocab_size", 1), ("num_heads", 1), ("warmup", 0), ("seed", None)):
        value = shape[name]
        if type(value) is not int or (least is not None and value < least):
            raise ValueError(f"model.{name} is {value!r}")
    return shape


def _require(value: Any, kind: type, where: str) -> Any:  # noqa: ANN401
    if not isinstance(value, kind):
        raise ValueError(f"{where} is no {KINDS[kind]}")
    return value


def _require_figures(figures: dict[str, Any], names: Iterable[str], where: str) -> None:
    for name in names:
        if figures.get(name) is not None and not is_number(figures[name]):
            raise ValueError(f"{where}.{name} is no number")
