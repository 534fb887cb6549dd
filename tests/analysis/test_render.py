import io
import subprocess
import sys
from functools import partial

import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from newllm_cli.render_analysis import number, render_analysis, render_matrix, sparkline
from newllm_core.analysis.analyze import analyze
from newllm_core.analysis.matrix import analyze_matrix

from . import planted


def printed(render, report, width=80):
    stream = io.StringIO()
    render(report, Console(file=stream, width=width))
    lines = stream.getvalue().splitlines()
    assert max(len(line) for line in lines) <= width
    assert "…" not in stream.getvalue()
    return lines


def report_of(model, **options):
    checkpoint = planted.checkpoint_of(model, **options)
    return analyze(checkpoint, checkpoint_path="runs/a.safetensors", with_control=False)


def test_verdicts_come_first_one_line_each():
    lines = printed(render_analysis, planted.healthy_report())
    sections = [line.split("  ")[0] for line in lines[8:20]]
    assert sections == [
        "cvfp",
        "convergence",
        "training",
        "global attractor",
        "zero solution",
        "explosion",
        "distribution",
        "information content",
        "identity mapping",
        "token dependency",
        "dynamics",
        "memory",
    ]
    assert all(line.count("healthy") == 2 for line in lines[8:20])
    assert "ER/D ≥ 0.5" in lines[15]
    assert lines[3].startswith("CVFP holds: from the third reading")
    assert not any(line.startswith(("weak", "degenerate")) for line in lines)


def test_what_is_wrong_is_said_in_words():
    lines = printed(render_analysis, report_of(planted.collapsed_to_rank(3), vacuous=["a[b]"]))
    assert "degenerate information content of train: rank has collapsed (below 0.2)" in lines
    assert "weak       training: blocks were trained, no gradient from a[b]" in lines
    assert "loss terms without a gradient: a[b]" in lines


def test_figures_stand_beside_the_control():
    report = planted.healthy_report()
    lines = printed(render_analysis, report)
    row = next(line for line in lines if line.startswith("ER/D"))
    splits = [
        report["train"],
        report["validation"],
        report["random_control"]["train"],
        report["random_control"]["validation"],
    ]
    assert row.split()[1:] == [number(split["effective_rank_ratio"]) for split in splits]
    assert any("c[t-1]" in line for line in lines)


def test_differences_are_spelled_out_with_their_errors():
    report = planted.healthy_report()
    lines = printed(render_analysis, report)
    row = next(line for line in lines if line.startswith("exponent λ"))
    found = report["differences"]["train_minus_control"]["lyapunov_exponent"]
    assert row.split()[2:4] == [f"{found['difference']:+.3f}", f"±{found['stderr']:.3f}"]
    begin = next(i for i, line in enumerate(lines) if line.startswith("difference"))
    er = next(line for line in lines[begin:] if line.startswith("ER/D"))
    control = report["random_control"]["train"]["effective_rank_ratio"]
    assert er.split()[1] == f"{report['train']['effective_rank_ratio'] - control:+.3f}"


def test_curves_are_sparklines_of_train_and_control():
    lines = printed(render_analysis, planted.healthy_report())
    echo = next(i for i, line in enumerate(lines) if line.startswith("echo by token, log"))
    assert lines[echo].split()[4] == "train"
    assert lines[echo + 1].split()[0] == "control"
    assert lines[echo].index("█") < lines[echo].rindex("▁")
    memory = next(line for line in lines if line.startswith("memory by lag"))
    assert "█" in memory


def test_a_long_history_is_shown_in_a_few_lines():
    entry = planted.good_history()[0]
    history = [
        entry | {"iteration": i, "sweep_terms": {"cvfp": float(100 - i)}, "gradient_norms": {}}
        for i in range(1, 61)
    ]
    lines = printed(render_analysis, report_of(planted.healthy(), history=history))
    curve = next(line for line in lines if line.startswith("loss cvfp"))
    assert "99 → 40" in curve
    assert curve.index("█") < curve.index("▁")
    table = [line.split()[:2] for line in lines if line.strip().startswith("1  ")]
    assert table[0] == ["1", "1"]
    assert table[-1] == ["1", "60"]
    assert 3 <= len(table) <= 6
    history[59]["stopped_early"] = True
    report = report_of(planted.healthy(), history=history)
    lines = printed(partial(render_analysis, whole_history=True), report)
    table = [line.split()[1] for line in lines if line.strip().startswith("1  ")]
    assert table == [str(i) for i in range(1, 61)]
    assert "window 1 stopped early after iteration 60: enough tokens had converged" in lines


def test_untrained_and_sparse_histories():
    lines = printed(render_analysis, report_of(planted.healthy(), history=[]))
    assert "There is no history of Phase 1." in lines
    lines = printed(render_analysis, report_of(planted.healthy(), history=[{}, {"iteration": 2}]))
    assert "As Phase 1 wrote it down when it trained, 2 iterations" in lines


def test_a_control_without_figures_is_shown_as_such():
    report = planted.healthy_report()
    report["random_control"] = {"train": None, "validation": None}
    row = next(line for line in printed(render_analysis, report) if line.startswith("ER/D"))
    assert row.split()[3:] == ["–", "–"]


def test_tokens_that_would_break_the_line_are_escaped():
    report = planted.healthy_report()
    tokens = report["train"]["singular_vectors"][0]["tokens"]
    for token, text in zip(tokens, ["\n", " the", "[bold]", "\x1b[31m", "é", "x"], strict=True):
        token["text"] = text
    row = next(line for line in printed(render_analysis, report) if "␣the" in line)
    assert row.split()[1:] == ["\\n", "␣the", "[bold]", "\\x1b[31m", "é", "x"]


def test_matrices_are_shown_with_their_rows(tmp_path):
    matrix = torch.randn(90, 6, generator=torch.Generator().manual_seed(0))
    matrix[42] = 30
    save_file({"wte": matrix}, tmp_path / "m.safetensors")
    report = analyze_matrix(tmp_path / "m.safetensors", "wte")
    report["file"] = "m.safetensors"
    lines = printed(render_matrix, report)
    assert lines[0] == "wte in m.safetensors"
    assert not any("step cosine" in line for line in lines)
    first = next(i for i, line in enumerate(lines) if "top singular values" in line) + 2
    assert lines[first].split()[:2] == [number(report["top_singular_values"][0]), "42"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"), ([5, 5], "▁▁"), ([1, None, 0], "█ ▁"), ([], "")],
)
def test_sparkline(values, expected):
    assert sparkline(values) == expected


def test_sparkline_keeps_both_ends_when_thinned():
    line = sparkline([9.0] + [1.0] * 500 + [5.0], width=20)
    assert (len(line), line[0], line[1], line[-1]) == (20, "█", "▁", "▅")


def test_rendering_needs_no_torch():
    code = "import sys, newllm_cli.render_analysis; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
