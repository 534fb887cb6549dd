"""Tables of results, except those of `analyze` (see `render_analysis`)."""

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from newllm_core.analysis.report.figures import fixed, look_up, short
from newllm_core.data.text_counts import lost_text_in_words
from newllm_core.files.names import quoted
from newllm_core.plugins.plugin import FROM_FILES

PER_CHARACTER = ("bits_per_character", "bits/char")


def _table(title: str, *headings: str, left: int = 1) -> Table:
    """Make a table of numbers; the first `left` columns hold words."""
    table = Table(title=title, title_justify="left")
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="left" if index < left else "right")
    return table


def render_dataset(folder: str, info: dict[str, Any], console: Console) -> None:
    """Show what `prepare` made."""
    table = _table(f"dataset {folder}", "split", "documents", "tokens", "bytes", "words")
    for split, figures in info["splits"].items():
        counts = (figures[key] for key in ("documents", "tokens", "bytes", "words"))
        table.add_row(split, *("-" if count is None else f"{count:,}" for count in counts))
    console.print(table)
    next_one = f"newllm phase1 --data {quoted(folder)}"
    console.print(f"vocabulary {info['vocab_size']:,}; next: {next_one}", soft_wrap=True)


def render_phase1(summary: dict[str, Any], console: Console) -> None:
    """Show what Phase 1 reached, whether that is enough, and what to do next."""
    headings = ("split", "CVFP drift", "ER/D", "pair cosine", "step cosine", "λ", "tokens kept")
    table = _table(f"phase 1: {summary['checkpoint']}", *headings)
    names = ("drift", "effective_rank_ratio", "mean_cosine", "step_cosine", "lyapunov_exponent")
    for split in ("train", "validation"):
        found = summary["gate"][split]
        table.add_row(split, *(short(found.get(name), "-") for name in (*names, "tokens_kept")))
    console.print(table)
    for term in summary["vacuous_terms"]:
        console.print(f"vacuous term: {term} (its gradient was zero throughout)")
    verdict = summary["verdict"]
    if verdict["succeeded"]:
        weak = [
            v["section"].replace("_", " ") for v in verdict["verdicts"] if v["status"] == "weak"
        ]
        listed = ", ".join(dict.fromkeys(weak))
        but = f" (weak: {listed})" if weak else ": CVFP holds, contexts are diverse"
        done = f"succeeded on train and validation{but}"
        if any(v["status"] == "degenerate" for v in verdict["verdicts"]):
            done = "trained nothing: a start for phase 2, as phase2.untrained_blocks allows"
        console.print(f"phase 1 {done}", soft_wrap=True)
    else:
        console.print(f"phase 1 FAILED: {verdict['reason']}", style="bold red", soft_wrap=True)
    files = "".join(f" --plugin {quoted(path)}" for path in FROM_FILES)
    checkpoint = quoted(summary["checkpoint"])
    console.print(f"next: newllm analyze {checkpoint}{files}", soft_wrap=True)


def render_language_model(summary: dict[str, Any], console: Console) -> None:
    """Show what the heads reach, per head and together."""
    splits = [name for name in ("train", "validation", "test", "text") if name in summary]
    # Where nothing separates words, characters are counted instead.
    has_words = any(summary[name]["word_perplexity"] is not None for name in splits)
    key, heading = ("word_perplexity", "per word") if has_words else PER_CHARACTER
    headings = ("split", "head", "loss", "perplexity", heading, "accuracy", "bits/byte")
    table = _table(f"language model: {summary['checkpoint']}", *headings, left=2)
    for split in splits:
        figures = summary[split]
        heads = figures["heads"]
        rows = [(str(number), head) for number, head in enumerate(heads, 1)]
        for name, row in rows if len(heads) == 1 else [*rows, ("all", figures)]:
            table.add_row(
                split if name == "1" else "",
                name,
                _fixed(row["loss"], ".4f"),
                _fixed(row["perplexity"], ".2f"),
                _fixed(row[key], ".2f" if has_words else ".4f"),
                f"{row['accuracy']:.2%}",
                _fixed(row["bits_per_byte"], ".4f"),
            )
    if splits:  # heads that nobody has trained yet have no figures
        console.print(table)
    for split in splits:
        shares = [summary[split].get(name) for name in ("unknown_share", "lost_share")]
        if any(shares):
            said = lost_text_in_words(*shares)
            console.print(f"{split}: {said}; bits per byte count those as 8 bits each")
        words = summary[split].get("num_whitespace_words")
        if words is not None:
            count = _fixed(summary[split]["whitespace_word_perplexity"], ".2f")
            console.print(f"{split}: perplexity {count} per word of {words:,} without line ends")


def _fixed(value: float | None, shape: str) -> str:
    return "-" if value is None else fixed(value, shape)


def render_quickstart(results: dict[str, Any], console: Console) -> None:
    """Show the whole run in one table, validation figures only."""
    report = results["analysis"]
    trained, control = report["validation"], report["random_control"]["validation"]
    table = _table("in short, on validation text", "figure", "trained", "untrained")
    for label, path in (
        ("CVFP: contexts change in a 4th reading by", ("repeat_drift", "third_to_fourth")),
        ("dimensions used, ER/D", ("effective_rank_ratio",)),
        ("same contexts for different tokens, cosine", ("token_dependency", "mean_cosine")),
        ("growth of a disturbance per token, λ", ("lyapunov_exponent", "mean")),
    ):
        table.add_row(label, *(_figure(look_up(split, path)) for split in (trained, control)))
    # An untrained head was shown a part of the text only: its loss holds for all of it, but a byte
    # there is not the same share of a token.
    whole = results["phase2"]["validation"]
    untrained = results["phase2"]["epochs"][0]["validation"]["loss"] / math.log(2)
    untrained *= whole["num_tokens"] / whole["num_bytes"]
    for label, name in (("one head", "phase2"), ("last of all heads", "heads")):
        head = results[name]["validation"]["heads"][-1]
        table.add_row(f"bits per byte, {label}", _figure(head["bits_per_byte"]), _figure(untrained))
    console.print(table)


def _figure(value: float | None) -> str:
    return _fixed(value, ".3f" if value is None or value == 0 or abs(value) >= 1e-3 else ".0e")


def render_bench(report: dict[str, Any], console: Console) -> None:
    """Show speed of every engine, and what the machine can do."""
    headings = ("engine", "precision", "tokens/s", "over naive", "of peak")
    table = _table(f"phase 1 of {report['preset']}", *headings, left=2)
    for row in report["rows"]:
        ratio = row["ratio_to_naive"]
        table.add_row(
            row["engine"],
            row["precision"],
            f"{row['tokens_per_second']:,.0f}",
            "-" if ratio is None else f"{ratio:,.1f}",
            f"{row['share_of_peak']:.0%}",
        )
    console.print(table)
    peaks = ", ".join(f"{dtype} {rate:,.0f} GFLOP/s" for dtype, rate in report["peaks"].items())
    console.print(f"measured peaks of {report['device']}: {peaks}")
    console.print(report["kernels"])


def render_sample(prompt: str, text: str, console: Console) -> None:
    """Show generated text after its prompt."""
    console.print(Text.assemble("sample: ", (prompt, "bold"), text), soft_wrap=True)
