"""The model card: what a model is, what it was trained on, what was measured, how to use it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from newllm_core.analysis.analyze import analyze
from newllm_core.analysis.health import health_of
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.data.sources import ultrachat, wikitext
from newllm_core.data.sources.rows import HUB
from newllm_core.plugins.registry import DATA_SOURCES
from newllm_core.runtime.progress import Progress

HUB_DATASETS = {"ultrachat": ultrachat.REPOSITORY, "wikitext": wikitext.REPOSITORY}
METRICS = {
    "perplexity": "perplexity per token",
    "bits_per_byte": "bits per byte",
    "word_perplexity": "perplexity per word",
    "accuracy": "accuracy per token",
}
HEALTH = {
    "effective_rank_ratio": "effective rank / dimensions",
    "mean_cosine": "mean cosine of two contexts",
    "step_cosine": "cosine of a context and the next",
    "token_cosine": "cosine of what two tokens make of one context",
    "lyapunov_exponent": "Lyapunov exponent per token",
    "tokens_remembered": "tokens remembered",
}


def model_card(
    checkpoint: Checkpoint,
    *,
    name: str,
    analysis: bool,
    license_id: str | None,
    languages: Sequence[str],
    progress: Progress,
) -> str:
    """Return the text of the card, YAML front matter first.

    Args:
        checkpoint: the model.
        name: of the model.
        analysis: whether health is measured, and shown beside the random control.
        license_id: as the hub spells it; left out where it is not given.
        languages: ISO 639 codes.
        progress: is told how far the analysis is.
    """
    figures = checkpoint.results.get("validation") or {}
    figures = (figures.get("heads") or [figures])[-1]  # the one that is exported
    measured = {key: figures[key] for key in METRICS if figures.get(key) is not None}
    sources = _sources(checkpoint)
    datasets = [on_hub for source in sources if (on_hub := _on_hub(source)) is not None]
    names = datasets or [source["name"] for source in sources]
    trained_on = ", ".join(dict.fromkeys(names)) or "unknown"
    front = ModelCardData(
        language=list(languages) or None,
        license=license_id,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["newllm", "rnn", "context-vector"],
        datasets=sorted(set(datasets)) or None,
        model_name=name,
        eval_results=[
            EvalResult(
                task_type="text-generation",
                dataset_type=trained_on,
                dataset_name=trained_on,
                dataset_split="validation",
                metric_type=key,
                metric_name=METRICS[key],
                metric_value=value,
            )
            for key, value in measured.items()
        ],
    )
    sections = [
        f"---\n{front.to_yaml()}\n---\n\n# {name}",
        _about(checkpoint),
        USAGE,
        "## Trained on\n\n" + _trained_on(checkpoint, sources),
    ]
    if measured:
        rows = [[METRICS[key], _shown(value)] for key, value in measured.items()]
        sections.append("## Validation\n\n" + _table(["figure", "value"], rows))
    if analysis:
        sections.append("## Health of the memory\n\n" + _health(checkpoint, progress))
    return "\n\n".join(sections) + "\n"


USAGE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

FOLDER = "."  # or the name on the hub
tokenizer = AutoTokenizer.from_pretrained(FOLDER, trust_remote_code=True)
model = AutoModelForCausalLM.from_pretrained(FOLDER, trust_remote_code=True)
inputs = tokenizer("The", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0], skip_special_tokens=True))
```

Needs `transformers>=5.20`. `newllm import . --out model.safetensors` makes a checkpoint of newllm
again, also after fine-tuning."""


def _about(checkpoint: Checkpoint) -> str:
    shape = checkpoint.model.config
    layers = ", ".join(map(str, shape.layer_structure))
    return (
        f"A recurrent language model of {checkpoint.model.num_parameters():,} parameters. Its "
        f"whole memory is one vector of {shape.context_dim} numbers, however long the text: "
        f"cell `{shape.cell}`, cells per block {layers}, embeddings of {shape.embed_dim}, "
        f"{checkpoint.model.vocab_size:,} tokens."
    )


def _sources(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    records = checkpoint.provenance.get("plugins", [])
    return [record for record in records if record["kind"] == DATA_SOURCES.kind]


def _on_hub(source: dict[str, Any]) -> str | None:
    """Return the name of the data set on the hub that was read; None for files."""
    given = source.get("input") or ""
    if given.startswith(HUB):
        return str(given.split(":")[1])
    return None if given else HUB_DATASETS.get(source["name"])


def _trained_on(checkpoint: Checkpoint, sources: list[dict[str, Any]]) -> str:
    lines = []
    for source in sources:
        # The folder it was in is nobody's business.
        where = f" from `{Path(source['input']).name}`" if source.get("input") else ""
        options = json.dumps(source.get("options") or {})
        lines.append(f"- data source `{source['name']}`{where}, options `{options}`")
    made = [f"- {key} {checkpoint.provenance.get(key, '?')}" for key in ("newllm", "torch")]
    return "\n".join([*lines, f"- objective `{checkpoint.config.phase1.objective}`", *made])


def _health(checkpoint: Checkpoint, progress: Progress) -> str:
    report = analyze(checkpoint, checkpoint_path="", progress=progress)
    trained = health_of(report["validation"])
    control = report["random_control"]["validation"]
    untrained = health_of(control) if control else {}
    rows = [
        [label, _shown(trained[key]), _shown(untrained.get(key))] for key, label in HEALTH.items()
    ]
    bad = [v for v in report["verdicts"] if v["status"] != "healthy"]
    verdict = "; ".join(f"{v['message']} ({v['split']})" for v in bad)
    return (
        "On validation text, beside the same model with untrained blocks:\n\n"
        + _table(["figure", "trained", "untrained"], rows)
        + f"\n\nVerdicts of `newllm analyze`: {verdict or 'healthy throughout'}."
    )


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
