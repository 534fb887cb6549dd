"""Every cell against its formula, and what its options do."""

import math

import pytest
import torch
from recurrence import D, E, cell_formula, draw, shake

from newllm_core.config import ModelConfig
from newllm_core.errors import ConfigError
from newllm_core.model.language_model import CVFPBlock, LanguageModel
from newllm_core.plugins.registry import CELLS
from newllm_core.settings import make_section

N = 7
WIDTHS = [None, D + E, 5, 40]
CASES = [
    *[("residual", {"hidden_dim": w, "layernorm_mix": m}) for w in WIDTHS for m in (0.0, 0.3, 1.0)],
    *[("gated", {"hidden_dim": w, "layernorm_mix": m}) for w in WIDTHS for m in (0.0, 1.0)],
    *[(cell, {"depth": d}) for cell in ("residual", "gated") for d in (1, 2, 3, 4)],
    *[(cell, {"depth": 3, "hidden_dim": 5}) for cell in ("residual", "gated")],
    ("residual", {"residual_coefficient": 0.25}),
    ("residual", {"residual_coefficient": -1.5, "hidden_dim": 5}),
    ("residual", {"residual": "learned", "residual_coefficient": 0.5}),
    *[("mogrifier", {"rounds": rounds}) for rounds in (0, 1, 2, 5)],
    ("gru", {}),
    ("mingru", {}),
]
SQUARE = {"gru": {}, "mingru": {}, "mogrifier": {"rounds": 2}, "gated": {}, "residual": {}}


def make_cell(name, context_dim=D, embed_dim=E, *, std=0.3, noise=0.3, **options):
    cell_type = CELLS.load(name)
    cell = cell_type(context_dim, embed_dim, make_section(cell_type.Options, "cell", options))
    cell.initialise(std, torch.Generator().manual_seed(0))
    cell = cell.double()
    shake(cell, noise)
    return cell


def matrices(cell):
    return {name: p for name, p in cell.named_parameters() if p.ndim == 2}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_values_and_gradients_equal_the_formula(name, options, exact_device):
    cell = make_cell(name, **options).to(exact_device)
    sizes = ((N, D), (N, E), (N, D + E))
    drawn = (draw(*size, seed=seed).to(exact_device) for seed, size in enumerate(sizes, start=50))
    context, token, weights = drawn
    context.requires_grad_(), token.requires_grad_()
    found = torch.cat(cell(context=context, token=token), dim=1)
    rows = [cell_formula(name, cell, c, x) for c, x in zip(context, token, strict=True)]
    expected = torch.stack([torch.cat(row) for row in rows])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)

    inputs = [context, token, *cell.parameters()]
    gradients = [
        torch.autograd.grad((values * weights).sum(), inputs, allow_unused=True)
        for values in (found, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        # Without any LayerNorm in the mix its parameters have no gradient at all.
        one, other = (g if g is not None and g.any() else None for g in (one, other))
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_last_cell_makes_the_same_context_and_no_token(name, options):
    cell = make_cell(name, **options)
    context, token = draw(N, D), draw(N, E)
    new_context, _ = cell(context=context, token=token)
    cell.is_last = True
    found, same_token = cell(context=context, token=token)
    assert torch.equal(found, new_context)
    assert same_token is token
    assert not torch.equal(found, context)


def test_only_the_last_cell_of_a_model_leaves_the_token_out():
    model = LanguageModel(ModelConfig(context_dim=D, embed_dim=E, layer_structure=(2, 1)), 7)
    assert [cell.is_last for cell in model.cells()] == [False, False, True]


def test_context_and_token_cannot_be_swapped_by_position():
    cell = make_cell("residual")
    with pytest.raises(TypeError):
        cell(draw(N, D), draw(N, E))
    with pytest.raises(TypeError):
        CVFPBlock([cell])(draw(N, D), draw(N, E))


@pytest.mark.parametrize("name", ["residual", "gated"])
@pytest.mark.parametrize(
    ("options", "hidden"),
    [
        ({}, []),
        ({"hidden_dim": D + E}, []),
        ({"hidden_dim": D + E + 1}, [D + E + 1]),
        ({"hidden_dim": 5, "depth": 1}, []),
        ({"depth": 2}, [D + E]),
        ({"depth": 4, "hidden_dim": 5}, [5, 5, 5]),
    ],
)
def test_hidden_units_are_those_of_hidden_dim_between_depth_maps(name, options, hidden):
    network = make_cell(name, **options).network
    assert [layer.out_features for layer in network.hidden] == hidden
    sizes = [D + E, *hidden]
    assert [layer.in_features for layer in network.hidden] == sizes[:-1]
    assert network.to_context.weight.shape == (D, sizes[-1])
    assert network.to_token.weight.shape == (E, sizes[-1])


@pytest.mark.parametrize("options", [{"residual_coefficient": 0.25}, {}])
def test_a_fixed_coefficient_scales_what_was_there(options):
    cell = make_cell("residual", layernorm_mix=0.0, **options)
    with torch.no_grad():
        for parameter in cell.network.parameters():
            parameter.zero_()
    context, token = draw(N, D), draw(N, E)
    coefficient = options.get("residual_coefficient", 1.0)
    for found, value in zip(cell(context=context, token=token), (context, token), strict=True):
        torch.testing.assert_close(found, coefficient * value, rtol=0, atol=1e-15)
    assert cell.coefficients is None


def test_a_learned_coefficient_starts_where_it_is_told_and_has_a_gradient():
    cell = make_cell("residual", noise=0.0, residual="learned", residual_coefficient=0.5)
    assert cell.coefficients.tolist() == [0.5, 0.5]
    assert "coefficients" in dict(cell.named_parameters())
    weights = draw(N, D, seed=3), draw(N, E, seed=4)
    pair = cell(context=draw(N, D, seed=1), token=draw(N, E, seed=2))
    sum((part * weight).sum() for part, weight in zip(pair, weights, strict=True)).backward()
    assert cell.coefficients.grad.abs().min() > 1e-3


@pytest.mark.parametrize("name", SQUARE)
@pytest.mark.parametrize("scheme", ["normal", "xavier", "he"])
def test_the_scale_of_initial_matrices(name, scheme):
    cell = make_cell(name, 150, 90, std=0.07, noise=0.0, init=scheme, **SQUARE[name])
    found = matrices(cell)
    if "network.to_context.weight" in found:  # one matrix, kept as two
        parts = [found.pop(f"network.to_{part}.weight") for part in ("context", "token")]
        found["network.last"] = torch.cat(parts)
    for key, matrix in found.items():
        outputs, inputs = matrix.shape
        std = {"normal": 0.07, "xavier": math.sqrt(2 / (inputs + outputs))}
        std["he"] = math.sqrt(2 / inputs)
        assert matrix.std().item() == pytest.approx(std[scheme], rel=0.04), key
        assert abs(matrix.mean().item()) < 0.05 * std[scheme], key


@pytest.mark.parametrize("name", SQUARE)
def test_orthogonal_matrices_have_orthonormal_rows_or_columns(name):
    cell = make_cell(name, 20, 12, noise=0.0, init="orthogonal", **SQUARE[name])
    found = matrices(cell)
    if "network.to_context.weight" in found:
        parts = [found.pop(f"network.to_{part}.weight") for part in ("context", "token")]
        found["network.last"] = torch.cat(parts)
    for key, matrix in found.items():
        product = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
        torch.testing.assert_close(product, torch.eye(len(product)).double(), rtol=0, atol=1e-5)
        assert (matrix != 0).double().mean() > 0.9, key


@pytest.mark.parametrize("name", SQUARE)
def test_initial_vectors(name):
    for key, parameter in make_cell(name, noise=0.0, **SQUARE[name]).named_parameters():
        if parameter.ndim == 1:
            is_one = key == "gate.bias" or (key.startswith("norm") and key.endswith("weight"))
            assert parameter.unique().tolist() == [float(is_one)], key


def test_the_gates_initial_bias_is_an_option():
    cell = make_cell("gated", noise=0.0, gate_bias=-2.0)
    assert cell.gate.bias.unique().tolist() == [-2.0]


def test_without_layernorm_a_residual_update_only_adds():
    cell = make_cell("residual", layernorm_mix=0.0)
    context, token = draw(N, D), draw(N, E)
    new_context, new_token = cell(context=context, token=token)
    assert (new_context >= context).all()
    assert (new_token >= token).all()
    assert (new_context > context).any()


def test_with_layernorm_contexts_have_a_fixed_norm():
    cell = make_cell("residual", noise=0.0)
    new_context, _ = cell(context=100 * draw(N, D), token=draw(N, E))
    norms = new_context.norm(dim=1)
    torch.testing.assert_close(norms, torch.full((N,), D**0.5).double(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", ["gated", "gru", "mogrifier"])
def test_a_gated_context_stays_between_the_old_one_and_one(name):
    cell = make_cell(name)
    context = 3 * draw(N, D)
    new_context, _ = cell(context=context, token=draw(N, E))
    assert (new_context.abs() <= context.abs().clamp(min=1)).all()
    assert not torch.equal(new_context, context)


def test_a_mingru_contracts_by_what_the_token_says_whatever_was_read_before():
    cell, token = make_cell("mingru"), draw(N, E)
    contexts = draw(N, D, seed=1), draw(N, D, seed=2)
    one, other = (cell(context=context, token=token)[0] for context in contexts)
    kept = (one - other) / (contexts[0] - contexts[1])
    z = cell.of_token(token)[:, :D].sigmoid()
    torch.testing.assert_close(kept, 1 - z, rtol=1e-9, atol=1e-9)


def test_a_block_returns_the_context_after_each_of_its_layers():
    cells = [make_cell("residual", std=0.2 + number / 10) for number in range(3)]
    context, token = draw(N, D), draw(N, E)
    contexts, new_token = CVFPBlock(cells)(context=context, token=token)
    assert len(contexts) == 3
    for cell, found in zip(cells, contexts, strict=True):
        context, token = cell(context=context, token=token)
        assert torch.equal(found, context)
    assert torch.equal(new_token, token)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("residual", {"hiden_dim": 3}, "hiden_dim of cell 'residual'; did you mean 'hidden_dim'"),
        ("gru", {"rounds": 1}, "unknown key cell.rounds of cell 'gru' (known: "),
        ("residual", {"depth": 5}, "cell.depth is 5: at most 4"),
        ("gated", {"init": "lecun"}, "cell.init is 'lecun': choose one of normal, xavier"),
        ("residul", {}, "unknown cell 'residul'; did you mean 'residual'"),
    ],
)
def test_unknown_cells_and_options_are_one_line(name, options, words):
    with pytest.raises(ConfigError) as caught:
        LanguageModel(ModelConfig(cell=name), 5, cell=options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
