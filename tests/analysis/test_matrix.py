import json

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from newllm_cli.render_analysis import render_matrix
from newllm_core.analysis.matrix import analyze_matrix
from newllm_core.analysis.rank import effective_rank
from newllm_core.analysis.report.analysis_page import matrix_page
from newllm_core.analysis.report.charts import spectrum_chart
from newllm_core.analysis.sections import norm_summary
from newllm_core.config import AnalysisConfig
from newllm_core.errors import InputError
from newllm_core.files.tensor_files import open_tensors


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_values_whose_squares_no_number_can_hold_are_refused(tmp_path, scale):
    path = tmp_path / "far.npy"
    np.save(path, np.random.default_rng(0).normal(size=(50, 8)) * scale)
    with pytest.raises(InputError, match=r"whose squares no number can hold: divide it by"):
        analyze_matrix(path)


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def numbers(report):
    """Every number in a report, in order, without where it came from."""
    if isinstance(report, dict):
        return [n for k, v in report.items() if k not in ("file", "tensor") for n in numbers(v)]
    if isinstance(report, list):
        return [n for value in report for n in numbers(value)]
    return [report]


@pytest.fixture
def embeddings(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"wte": gaussian(400, 24), "bias": torch.zeros(24)}, path)
    return path


def test_figures_are_those_of_the_tensor(embeddings):
    report = analyze_matrix(embeddings, "wte")
    matrix = gaussian(400, 24)
    assert (report["schema"], report["tensor"], report["shape"]) == (1, "wte", [400, 24])
    assert report["file"] == str(embeddings)
    assert report["effective_rank"] == pytest.approx(effective_rank(matrix))
    assert report["actual_rank"] == 24
    assert report["norm"] == pytest.approx(norm_summary(matrix))
    np.testing.assert_allclose(report["dimension_variance"], matrix.var(0, correction=0), rtol=1e-5)
    assert report["effective_rank_ceiling_ratio"] == pytest.approx(1, abs=0.02)
    assert "identity_cosine" not in report
    assert "token_dependency" not in report
    json.dumps(report, allow_nan=False)


def test_rows_that_load_on_the_top_vector_are_named(tmp_path):
    matrix = gaussian(200, 10) * 0.1
    matrix[123] = 40.0
    save_file({"m": matrix}, tmp_path / "m.safetensors")
    top = analyze_matrix(tmp_path / "m.safetensors")["singular_vectors"][0]
    assert top["rows"][0]["id"] == 123
    assert top["rows"][0]["loading"] == pytest.approx(40 * 10**0.5, rel=1e-2)


@pytest.mark.parametrize("shape", [(300, 20), (20, 300)])
@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_small_chunks_give_the_same_figures(tmp_path, shape, kind, monkeypatch):
    matrix = gaussian(*shape)
    path = tmp_path / f"m.{kind}"
    if kind == "npy":
        np.save(path, matrix.numpy())
    else:
        save_file({"m": matrix}, path)
    config = AnalysisConfig(num_pairs=150)
    whole = analyze_matrix(path, config=config)
    monkeypatch.setattr("newllm_core.analysis.chunks.CHUNK_ELEMENTS", 70)
    pieces = analyze_matrix(path, config=config)
    np.testing.assert_allclose(numbers(pieces), numbers(whole), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(
    "dtype", ["float16", "float32", "float64", ">f4", "int32", "uint8", "bool"]
)
def test_numpy_arrays_of_any_real_type(tmp_path, dtype):
    array = (gaussian(60, 5).numpy() * 20 + 60).astype(dtype)
    np.save(tmp_path / "m.npy", array)
    report = analyze_matrix(tmp_path / "m.npy")
    assert report["tensor"] is None
    expected = np.linalg.norm(array.astype("f8"), axis=1).mean()
    assert report["norm"]["mean"] == pytest.approx(expected, rel=1e-6)


def test_half_precision_tensors(tmp_path):
    save_file({"m": gaussian(60, 5).bfloat16()}, tmp_path / "m.safetensors")
    report = analyze_matrix(tmp_path / "m.safetensors")
    assert report["actual_rank"] == 5


def test_a_matrix_of_zeros_has_finite_figures(tmp_path):
    save_file({"m": torch.zeros(30, 4)}, tmp_path / "m.safetensors")
    report = analyze_matrix(tmp_path / "m.safetensors")
    assert (report["effective_rank"], report["actual_rank"], report["sparsity"]) == (0, 0, 1)
    assert report["pairwise_cosine"]["mean"] == 1
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("kind", ["safetensors", "npy"])
def test_a_vector_has_a_distribution_and_a_norm_and_no_ranks(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("newllm_core.analysis.chunks.CHUNK_ELEMENTS", 700)
    values = gaussian(5000) * 2 + 1
    values[:50] = 0
    path = tmp_path / f"m.{kind}"
    if kind == "npy":
        np.save(path, values.numpy())
    else:
        save_file({"wte": gaussian(9, 4), "ln_f.weight": values}, path)
    name = None if kind == "npy" else "ln_f.weight"
    report = analyze_matrix(path, name)
    assert (report["tensor"], report["shape"], report["num_values"]) == (name, [5000], 5000)
    exact = values.double()
    assert report["euclidean_norm"] == pytest.approx(float(exact.norm()))
    assert report["values"]["mean"] == pytest.approx(float(exact.mean()))
    assert report["values"]["std"] == pytest.approx(float(exact.std(correction=0)))
    assert (report["values"]["min"], report["values"]["max"]) == (exact.min(), exact.max())
    assert 0.01 <= report["sparsity"] < 0.02
    histogram = report["histogram"]
    assert sum(histogram["shares"]) == pytest.approx(1)
    mean = sum(c * s for c, s in zip(histogram["centres"], histogram["shares"], strict=True))
    assert mean == pytest.approx(float(exact.mean()), abs=0.05)
    assert not [key for key in report if "rank" in key or "cosine" in key or "singular" in key]
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize("values", [torch.ones(64), torch.zeros(3), torch.tensor([7.0])])
def test_a_vector_of_one_value(tmp_path, values):
    save_file({"ln": values.half()}, tmp_path / "m.safetensors")
    report = analyze_matrix(tmp_path / "m.safetensors", "ln")
    assert report["values"]["mean"] == float(values[0])
    assert report["values"]["std"] == 0
    assert report["euclidean_norm"] == pytest.approx(float(values.norm()))
    assert sum(report["histogram"]["shares"]) == 1
    assert report["sparsity"] == float(values[0] == 0)


def test_a_vector_with_values_that_are_not_finite(tmp_path):
    save_file({"ln": torch.tensor([1.0, 2.0, float("nan")])}, tmp_path / "m.safetensors")
    message = refused(tmp_path / "m.safetensors", "ln")
    assert "not finite" in message
    assert "row 2" in message


def test_a_vector_in_the_terminal_and_as_a_page(tmp_path, capsys):
    save_file({"ln_f.weight": torch.linspace(0, 3, 31)}, tmp_path / "m.safetensors")
    report = analyze_matrix(tmp_path / "m.safetensors", "ln_f.weight")
    render_matrix(report, Console(width=300))
    lines = capsys.readouterr().out.splitlines()
    assert "31 values of one dimension" in lines[1]
    rows = {line.split("  ")[0].strip(): line.split()[-1] for line in lines[4:] if line.strip()}
    assert (rows["value, mean"], rows["norm"]) == ("1.5", "9.724")
    assert "effective rank" not in rows
    html = matrix_page(report)
    assert "Distribution of the values" in html
    assert "Strongest directions" not in html


def refused(path, tensor=None):
    with pytest.raises(InputError) as caught:
        analyze_matrix(path, tensor)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_missing_files_and_tensors(embeddings, tmp_path):
    assert "no such safetensors file" in refused(tmp_path / "none.safetensors")
    message = refused(embeddings, "wpe")
    assert "'wpe'" in message
    assert "wte" in message


def test_a_file_of_two_matrices_needs_a_name(tmp_path):
    save_file({"a": gaussian(4, 2), "b": gaussian(4, 2)}, tmp_path / "m.safetensors")
    assert "a, b" in refused(tmp_path / "m.safetensors")
    assert analyze_matrix(tmp_path / "m.safetensors", "b")["tensor"] == "b"


@pytest.mark.parametrize("shape", [(0,), (), (2, 3, 4), (1, 6), (0, 4)])
def test_only_matrices_of_two_rows_or_more(tmp_path, shape):
    save_file({"m": torch.zeros(shape)}, tmp_path / "m.safetensors")
    assert "at least two rows" in refused(tmp_path / "m.safetensors", "m")
    np.save(tmp_path / "m.npy", np.zeros(shape))
    assert "at least two rows" in refused(tmp_path / "m.npy")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite(tmp_path, bad):
    matrix = gaussian(30, 4)
    matrix[17, 2] = bad
    save_file({"m": matrix}, tmp_path / "m.safetensors")
    message = refused(tmp_path / "m.safetensors")
    assert "not finite" in message
    assert "row 17" in message


def test_foreign_files(tmp_path):
    (tmp_path / "m.safetensors").write_bytes(b"not a tensor file at all")
    assert "not a readable safetensors" in refused(tmp_path / "m.safetensors")
    (tmp_path / "m.npy").write_bytes(b"nor this")
    assert "not a readable .npy" in refused(tmp_path / "m.npy")


def test_numbers_of_half_a_byte_are_refused(tmp_path):
    header = b'{"m": {"dtype": "F4", "shape": [8, 4], "data_offsets": [0, 16]}}'
    path = tmp_path / "m.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    assert "tensor 'm' of" in (message := refused(path))
    assert "has the type F4" in message


def test_a_whole_file_is_not_called_damaged(tmp_path):
    save_file({"m": torch.zeros(3, 2)}, tmp_path / "m.safetensors")
    with (
        pytest.raises(InputError, match=r"not a readable safetensors file: .*absent") as caught,
        open_tensors(tmp_path / "m.safetensors") as file,
    ):
        file.get_tensor("absent")
    assert "damaged" not in str(caught.value)


def test_pickles_and_strings_in_npy_are_refused(tmp_path):
    np.save(tmp_path / "o.npy", np.array([[{}, {}]] * 3, dtype=object), allow_pickle=True)
    refused(tmp_path / "o.npy")
    np.save(tmp_path / "s.npy", np.array([["a", "b"]] * 3))
    assert "real numbers" in refused(tmp_path / "s.npy")
    np.save(tmp_path / "c.npy", np.ones((3, 2), dtype=complex))
    assert "real numbers" in refused(tmp_path / "c.npy")


def test_a_name_for_an_array_without_names_is_refused(tmp_path):
    np.save(tmp_path / "m.npy", np.ones((3, 2)))
    assert "leave out --tensor" in refused(tmp_path / "m.npy", "m")


def test_a_spectrum_of_small_numbers_is_drawn_at_its_own_height():
    curve = {"index": [1, 2], "singular_values": [5e-4, 1e-5], "gaussian": [5e-4, 4e-4]}
    drawn = spectrum_chart({"matrix": ({"spectrum": curve}, "main")})
    assert 0 < drawn.floor < 1e-5
    still = {"spectrum": curve | {"singular_values": [0.0, 0.0]}}
    assert spectrum_chart({"matrix": (still, "main")}).floor > 0
