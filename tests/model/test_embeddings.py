"""Pretrained embeddings from a safetensors file."""

import pytest
import torch
from recurrence import D, E, V
from safetensors.torch import save_file

from newllm_core.config import ModelConfig
from newllm_core.errors import InputError
from newllm_core.model.embeddings import load_embeddings, split_spec
from newllm_core.model.language_model import LanguageModel


@pytest.fixture
def model():
    config = ModelConfig(context_dim=D, embed_dim=E, embeddings="pretrained.safetensors")
    return LanguageModel(config, V)


@pytest.fixture
def write(tmp_path):
    def save(**tensors):
        path = tmp_path / "pretrained.safetensors"
        save_file(tensors, path)
        return str(path)

    return save


def matrix(rows=V, width=E, seed=0):
    return 5 * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def test_named_tensor(model, write):
    wanted = matrix(seed=1)
    path = write(other=matrix(), wte=wanted)
    said = load_embeddings(model, f"{path}:wte", added_tokens=0)
    assert torch.equal(model.embedding.weight, wanted)
    assert f"{V} embeddings of {E} dimensions" in said


def test_the_only_matrix_needs_no_name(model, write):
    wanted = matrix()
    load_embeddings(model, write(bias=torch.ones(4), wte=wanted), added_tokens=0)
    assert torch.equal(model.embedding.weight, wanted)


def test_half_precision_is_converted(model, write):
    wanted = matrix().half()
    load_embeddings(model, write(wte=wanted), added_tokens=0)
    assert model.embedding.weight.dtype == torch.float32
    assert torch.equal(model.embedding.weight, wanted.float())


def test_loaded_embeddings_are_frozen(write):
    random = LanguageModel(ModelConfig(context_dim=D, embed_dim=E), V)
    load_embeddings(random, write(wte=matrix()), added_tokens=0)
    assert not random.embedding.weight.requires_grad
    assert random.cells()[0].network.to_context.weight.requires_grad


def test_added_tokens_keep_random_rows_of_the_files_norm(model, write):
    wanted = matrix(V - 4)
    drawn = model.embedding.weight[V - 4 :].detach().clone()
    before = model.embedding.weight.norm(dim=1).mean().item()
    load_embeddings(model, write(wte=wanted), added_tokens=4)
    assert torch.equal(model.embedding.weight[: V - 4], wanted)
    scale = wanted.norm(dim=1).mean().item() / before
    torch.testing.assert_close(model.embedding.weight[V - 4 :], drawn * scale)


def test_a_file_may_hold_rows_for_the_added_tokens(model, write):
    wanted = matrix(V)
    load_embeddings(model, write(wte=wanted), added_tokens=4)
    assert torch.equal(model.embedding.weight, wanted)


@pytest.mark.parametrize(("rows", "added"), [(V + 3, 0), (V + 3, 2), (V - 1, 2), (3 * V, 1)])
def test_of_more_rows_than_tokens_the_first_are_taken(model, write, rows, added):
    wanted = matrix(rows)
    said = load_embeddings(model, write(wte=wanted), added_tokens=added)
    base = V - added
    assert torch.equal(model.embedding.weight[:base], wanted[:base])
    assert f"loaded {base} embeddings" in said
    assert f"the tokenizer has no tokens for the last {rows - base} rows" in said
    for row in model.embedding.weight[base:]:
        assert not torch.equal(row, wanted[base])
    assert "no tokens" not in load_embeddings(model, write(wte=matrix(V)), added_tokens=added)


@pytest.mark.parametrize("padding", [0, 47])
def test_the_layout_of_gpt2s_file(tmp_path, padding):
    """openai-community/gpt2, model.safetensors: [50257, 768] under wte.weight; narrower here."""
    tensors = {
        "wte.weight": matrix(50_257 + padding, 6),
        "wpe.weight": matrix(1024, 6, seed=1),
        "h.0.attn.bias": torch.ones(1, 1, 8, 8),
        "h.0.attn.c_attn.weight": matrix(6, 18, seed=2),
        "h.0.ln_1.weight": torch.ones(6),
        "ln_f.bias": torch.zeros(6),
    }
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    model = LanguageModel(ModelConfig(context_dim=D, embed_dim=6), 50_258)
    said = load_embeddings(model, f"{path}:wte.weight", added_tokens=1)
    assert torch.equal(model.embedding.weight[:50_257], tensors["wte.weight"][:50_257])
    assert said.startswith("loaded 50,257 embeddings of 6 dimensions")
    assert (f"last {padding} rows" in said) == (padding > 0)
    with pytest.raises(InputError, match=r"1024 rows, but the tokenizer has 50257 tokens"):
        load_embeddings(model, f"{path}:wpe.weight", added_tokens=1)


@pytest.mark.parametrize(
    ("tensors", "name", "words"),
    [
        ({"wte": matrix(width=E + 1)}, "", ["--embed-dim 12", f"embed_dim is {E}"]),
        ({"wte": matrix(rows=V - 3)}, "", [f"{V - 3} rows", f"{V - 2} tokens", "2 added"]),
        ({"wte": matrix(rows=1)}, "", ["1 rows", f"{V - 2} tokens"]),
        ({"wte": matrix()}, ":wpe", ["no tensor 'wpe'", "wte"]),
        ({"a": matrix(), "b": matrix()}, "", ["which tensor", "a, b"]),
        ({"a": torch.ones(3)}, "", ["which tensor", "a"]),
        ({"wte": torch.ones(E)}, ":wte", ["[11]", "matrix"]),
        ({"wte": torch.tensor(1.0)}, ":wte", ["[]", "matrix"]),
        ({"wte": matrix() / 0}, "", ["not finite"]),
    ],
)
def test_what_does_not_fit_is_one_line_that_says_so(model, write, tensors, name, words):
    before = model.embedding.weight.detach().clone()
    with pytest.raises(InputError) as caught:
        load_embeddings(model, write(**tensors) + name, added_tokens=2)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in [*words, "pretrained.safetensors"])
    assert torch.equal(model.embedding.weight, before)


def test_missing_and_foreign_files(model, tmp_path):
    with pytest.raises(InputError, match="no such safetensors file: "):
        load_embeddings(model, f"{tmp_path}/absent.safetensors:wte", added_tokens=0)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_text("no tensors here")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_embeddings(model, str(foreign), added_tokens=0)


@pytest.mark.parametrize(
    ("spec", "file", "tensor"),
    [
        ("a/b.safetensors", "a/b.safetensors", None),
        ("a/b.safetensors:wte.weight", "a/b.safetensors", "wte.weight"),
        ("c:/b.safetensors:x", "c:/b.safetensors", "x"),
        ("b.bin", "b.bin", None),
    ],
)
def test_file_and_tensor_are_told_apart(spec, file, tensor):
    path, name = split_spec(spec)
    assert (path.as_posix(), name) == (file, tensor)
