import math
import re
import subprocess
import sys

import pytest

from newllm_core.analysis.analyze import analyze
from newllm_core.analysis.compare import compare
from newllm_core.analysis.matrix import analyze_matrix
from newllm_core.analysis.report import png
from newllm_core.analysis.report.analysis_page import analysis_page, matrix_charts, matrix_page
from newllm_core.analysis.report.chart import Chart, Series, draw, log_ticks, tick_text, ticks
from newllm_core.analysis.report.charts import analysis_charts, history_charts
from newllm_core.analysis.report.compare_page import compare_page, comparison_curves
from newllm_core.analysis.report.figures import difference, fixed, number
from newllm_core.checkpoint.format import save
from newllm_core.errors import ConfigError

from . import browser, planted

HISTORY_CHARTS = ["loss", "gradient", "convergence"]
CONTEXT_CHARTS = ["spectrum", "cosine", "variance", "echo", "sweeps", "repeat", "memory"]
CONTEXT_CHARTS += ["contributions", "exponents", "along-text"]

needs_chromium = pytest.mark.skipif(browser.find() is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def report():
    return planted.healthy_report() | {"checkpoint": "runs/a<b>&.safetensors"}


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    paths = []
    for name in ("healthy", "collapsed_to_rank", "ignoring_tokens"):
        make = getattr(planted, name)
        model = make(3) if name == "collapsed_to_rank" else make()
        paths.append(folder / f"{name}.safetensors")
        save(planted.checkpoint_of(model), paths[-1], overwrite=False)
    return compare(paths)


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    import numpy as np

    path = tmp_path_factory.mktemp("matrix") / "m.npy"
    np.save(path, np.random.default_rng(0).normal(size=(300, 20)).astype("f4"))
    return analyze_matrix(path)


def test_every_chart_has_its_data(report, comparison, matrix):
    assert [chart.key for chart in analysis_charts(report)] == HISTORY_CHARTS + CONTEXT_CHARTS
    assert [chart.key for chart in comparison_curves(comparison)] == CONTEXT_CHARTS
    assert [chart.key for chart in matrix_charts(matrix)] == CONTEXT_CHARTS[:3]
    (memory,) = [chart for chart in analysis_charts(report) if chart.key == "memory"]
    assert [series.name for series in memory.series] == ["untrained", "train", "validation"]
    assert (
        list(memory.series[1].y)
        == report["train"]["token_memory"]["by_lag"][: len(memory.series[1].y)]
    )


def test_a_page_is_self_contained_and_escapes_what_it_shows(report):
    html = analysis_page(report)
    assert "a&lt;b&gt;&amp;" in html
    assert "a<b>" not in html
    # The namespace that the script needs for SVG is a name, not an address that is fetched.
    addresses = set(re.findall(r"https?://[^\s\"'<]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}
    assert not re.search(r"(?:src|href)\s*=|@import|url\(", html)


def test_verdicts_come_before_charts_and_numbers(report):
    html = analysis_page(report)
    places = [html.index(f"<h2>{title}</h2>") for title in ("Verdicts", "Charts", "All figures")]
    assert places == sorted(places)
    assert "in every section, on both splits" in html


def test_small_and_large_values_are_not_shown_as_nothing():
    report = planted.healthy_report()
    first, second, *_ = report["verdicts"]
    first["value"], second["value"] = 7.2e-6, -2.5e9
    verdicts = analysis_page(report).partition("<h2>Charts</h2>")[0]
    assert "7e−06" in verdicts
    assert "−2e+09" in verdicts


def test_a_report_on_one_text_speaks_of_no_second_one():
    report = planted.healthy_report()
    report["validation"] = report["random_control"]["validation"] = None
    report["verdicts"] = [v for v in report["verdicts"] if v["split"] == "train"]
    assert "in every section.</div>" in analysis_page(report)


def test_what_is_wrong_is_said_at_the_top():
    checkpoint = planted.checkpoint_of(planted.collapsed_to_rank(3), vacuous=["ema-variance"])
    html = analysis_page(analyze(checkpoint, checkpoint_path="x", with_control=False))
    top = html[: html.index("<h2>Verdicts</h2>")]
    assert "rank has collapsed" in top
    assert "no gradient from ema-variance" in top


@needs_chromium
@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("which", ["analysis", "comparison", "matrix"])
def test_a_browser_draws_every_chart_and_asks_for_nothing(
    which, width, report, comparison, matrix, tmp_path
):
    html, keys = {
        "analysis": (lambda: analysis_page(report), HISTORY_CHARTS + CONTEXT_CHARTS),
        "comparison": (lambda: compare_page(comparison), CONTEXT_CHARTS),
        "matrix": (lambda: matrix_page(matrix), CONTEXT_CHARTS[:3]),
    }[which]
    found = browser.load(html(), tmp_path, width=width)
    assert found.console == []
    assert found.resources == []
    assert found.overflow <= 0
    assert list(found.drawn) == [f"chart-{key}" for key in keys]
    for name, chart in found.drawn.items():
        assert chart["width"] > 250, name
        assert chart["lengths"], name
        assert max(chart["lengths"]) > 100, name
        assert chart["tip"], name


@needs_chromium
def test_dark_has_colours_of_its_own(report, tmp_path):
    light, dark = (
        browser.load(analysis_page(report), _folder(tmp_path, name), dark=name == "dark")
        for name in ("light", "dark")
    )
    for name in light.drawn:
        assert light.drawn[name]["colours"] != dark.drawn[name]["colours"]


@needs_chromium
def test_a_page_that_would_fetch_something_is_noticed(report, tmp_path):
    """The test above can fail: a picture from elsewhere is refused and reported."""
    picture = '<img src="http://127.0.0.1:9/x.png"></main>'
    found = browser.load(analysis_page(report).replace("</main>", picture), tmp_path)
    assert any("Content Security Policy" in line for line in found.console)


def _folder(parent, name):
    folder = parent / name
    folder.mkdir()
    return folder


def test_charts_alone_are_png_files(report, tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    paths = png.write_charts(analysis_charts(report), tmp_path / "charts")
    assert [path.stem for path in paths] == HISTORY_CHARTS + CONTEXT_CHARTS
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert all(path.stat().st_size > 10_000 for path in paths)


def test_without_matplotlib_there_is_one_helpful_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'newllm\[png\]'"):
        png.require_matplotlib()


def test_pages_need_no_torch():
    code = (
        "import sys, newllm_core.analysis.report.analysis_page, "
        "newllm_core.analysis.report.compare_page, newllm_core.analysis.report.png; "
        "print('torch' in sys.modules, 'matplotlib' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def chart_of(values, **options):
    series = [Series("s", list(range(len(values))), values, "train")]
    return Chart("k", "t", "c", "x", "y", series, **options)


def test_a_curve_is_where_its_values_are():
    svg = draw(chart_of([0.0, 1.0, None, 0.5]))
    path = re.search(r'<path[^>]* d="([^"]*)"', svg)[1]
    points = [tuple(map(float, p.split())) for p in re.split("[ML]", path) if p]
    assert path.count("M") == 2  # a gap for None
    (x0, y0), (x1, y1), (x3, y3) = points
    assert x1 - x0 == pytest.approx((x3 - x1) / 2, abs=0.1)
    assert y0 > y3 > y1
    assert y3 == pytest.approx((y0 + y1) / 2, abs=0.1)


def test_logarithmic_axes_show_two_powers_of_ten_at_least():
    assert chart_of([1.0, 0.9], log_y=True).y_range() == (-2.0, 0.0)
    assert chart_of([1.0, 1e-5], log_y=True).y_range() == pytest.approx((-5.0, 0.0))
    assert chart_of([1.0, 0.0], log_y=True, floor=1e-6).y_range() == pytest.approx((-6.0, 0.0))
    assert chart_of([None, None]).empty
    assert draw(chart_of([3.0, 3.0])).count("<path") == 1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]), (0, 256, [0, 100, 200]), (-0.3, 0.3, [-0.2, 0, 0.2])],
)
def test_ticks_are_round(low, high, expected):
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(("low", "high"), [(1, 3), (0.5, 1.5), (0, 4), (1, 13), (0, 40), (1, 768)])
def test_ticks_of_counts_are_whole(low, high):
    found = ticks(low, high, whole=True)
    assert found
    assert all(value == int(value) and low <= value <= high for value in found)
    assert len(found) <= 8


def test_iterations_have_no_fractions_on_their_axis_and_cosines_do():
    def x_ticks(chart):
        found = re.findall(r'text-anchor="middle">([^<]+)</text>', draw(chart))
        return found[:-1]  # without the label

    history = [{"sweep_terms": {"cvfp": 1.0 / n}, "window": 1} for n in (1, 2, 3)]
    for length in (1, 2, 3):
        loss = history_charts(history[:length])[0]
        assert x_ticks(loss) == [str(n + 1) for n in range(length)]
    assert all("." not in text for text in x_ticks(chart_of([1.0] * 769)))
    assert any("." in text for text in x_ticks(chart_of([1.0, 2.0], counts=False)))
    # The pointer names iteration 12,345, not one rounded to four digits.
    long = Chart("k", "t", "c", "x", "y", [Series("s", [12_345, 12_346], [1.0, 2.0], "a")])
    assert '"x":[12345,12346]' in draw(long)


def test_png_files_have_whole_iterations_too(monkeypatch):
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    png._draw(
        history_charts([{"sweep_terms": {"cvfp": 1.0}}, {"sweep_terms": {"cvfp": 2.0}}])[0], axes
    )
    assert all(float(tick).is_integer() for tick in axes.get_xticks())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (97709646817.733, "9.77·10¹⁰"),
        (-2.5e10, "-2.5·10¹⁰"),
        (2.5e6, "2.5M"),
        (25000.0, "25k"),
        (0.25, "0.25"),
        (2.5e-7, "2.5·10⁻⁷"),
        (0.0, "0"),
    ],
)
def test_ticks_are_short_at_any_size(value, text):
    assert tick_text(value) == text
    assert len(ticks(0, 1e-14)) == len({*ticks(0, 1e-14)}) > 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (97709646817.733, "9.77e+10"),
        (-97709646817.733, "-9.77e+10"),
        (123456.7, "123,457"),
        (12.3456, "12.35"),
        (0.000123, "1.23e-04"),
        (0.12345, "0.1235"),
        (1.2e-5, "1.20e-05"),
        (3.0, "3"),
        (0.0, "0"),
        (16384, "16,384"),
        (97_709_646, "97,709,646"),
        (None, "–"),
    ],
)
def test_numbers_are_readable_at_any_size(value, text):
    assert number(value) == text


def test_differences_of_any_size_are_readable():
    exploded = {"difference": 97709646817.733, "stderr": 1234567.8}
    assert difference(exploded) == "+9.77e+10 ±1.23e+06"
    assert difference({"difference": -0.25, "stderr": None}) == "-0.250"
    assert fixed(999999.4, ".2f") == "999999.40"


def test_ticks_of_powers():
    assert log_ticks(-6, 0) == [-6, -5, -4, -3, -2, -1, 0] or len(log_ticks(-6, 0)) <= 7
    fine = log_ticks(math.log10(40), math.log10(600))
    assert [tick_text(value, log=True) for value in fine] == ["50", "100", "200", "500"]
    assert [tick_text(v, log=True) for v in (-6.0, -2.0, 0.0)] == ["10⁻⁶", "0.01", "1"]
