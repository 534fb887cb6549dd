"""What an iteration says of the model: on exact contexts, whatever a sweep has left."""

import pytest
import torch
from naive_phase1 import make_config
from recurrence import D, V, draw_tokens, make_model, token_formula

from newllm_core.config import ModelConfig
from newllm_core.model.language_model import LanguageModel
from newllm_core.training.phase1.measure import figures_of_splits, model_figures

TEXT = draw_tokens(200)


def measure(model, tokens=TEXT, seed=0, warmup=16, **phase1):
    config = make_config({"analysis": {"warmup_tokens": warmup}}, **phase1)
    drawn = torch.Generator().manual_seed(seed)
    return model_figures(model, tokens, config, drawn, len(tokens))


def contraction(keep=-8.0):
    """Gates that keep next to nothing, and small weights: contexts forget in a token or two."""
    model = LanguageModel(ModelConfig(context_dim=D, embed_dim=11, cell="gated"), V)
    with torch.no_grad():
        for cell in model.cells():
            cell.gate.bias.fill_(keep)
    return model


def expansion():
    shape = {"layer_structure": (1,) * 6, "init_std": 1.0}
    return LanguageModel(ModelConfig(context_dim=D, embed_dim=11, **shape), V)


def test_a_contraction_converges_and_an_expansion_does_not():
    high = measure(contraction(), convergence_steps=50)["converged_ratio"]
    low = measure(expansion(), convergence_steps=50)["converged_ratio"]
    # The first token after a different start cannot have converged in every passage.
    assert 0.95 < high < 1.0
    assert low < 0.1


def test_the_last_passage_of_a_text_of_more_tokens_than_float32_can_count_is_within_it():
    text = torch.tensor(1).expand(2**24 + 3 + 16 + 10)
    assert measure(contraction(), text, convergence_steps=10)["converged_ratio"] > 0.7


@pytest.mark.parametrize(
    ("warmup", "tokens", "steps", "passages"), [(5, 30, 10, 3), (0, 500, 500, 1), (7, 5, 9, 1)]
)
@torch.no_grad()
def test_every_figure_equals_an_independent_computation(warmup, tokens, steps, passages):
    model = make_model(cell="gated", layer_structure=(1,))
    text, threshold = TEXT[:100], 0.3
    steps_used = min(steps, len(text)) if tokens >= steps else steps
    noise = torch.randn(
        passages, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    begins = [
        (len(text) - warmup - steps_used) * number // max(1, passages - 1)
        for number in range(passages)
    ]
    owns = []
    for begin in begins:
        own = torch.zeros(D, dtype=torch.float64)
        for token in text[begin : begin + warmup].tolist():
            own = token_formula(model, token, own)[-1]
        owns.append(own)
    norms = [float(own.norm()) for own in owns]
    scale = sum(norms) / passages if warmup else D**0.5
    below, contexts = 0, []
    for number, begin in enumerate(begins):
        own = owns[number]
        other = noise[number] / float(noise[number].norm()) * scale
        for token in text[begin + warmup : begin + warmup + steps_used].tolist():
            own = token_formula(model, token, own)[-1]
            other = token_formula(model, token, other)[-1]
            below += ((own - other) ** 2).sum().item() / D < threshold
            contexts.append(own)
    found = measure(
        model,
        text,
        seed=4,
        warmup=warmup,
        convergence_threshold=threshold,
        convergence_tokens=tokens,
        convergence_steps=steps,
    )
    rows = torch.stack(contexts)
    shares = torch.linalg.svdvals(rows)
    shares = shares / shares.sum()
    rank = float((-(shares * shares.log()).sum()).exp())
    cosines = torch.nn.functional.normalize(rows, dim=1) @ torch.nn.functional.normalize(rows).T
    count = len(rows)
    assert found["converged_ratio"] == pytest.approx(below / count, abs=1e-6)
    assert found["effective_rank_ratio"] == pytest.approx(rank / D, rel=1e-6)
    assert found["norm_ratio"] == pytest.approx(float(rows.norm(dim=1).mean()) / D**0.5, rel=1e-9)
    assert found["mean_cosine"] == pytest.approx(
        float(cosines.sum() - count) / (count * (count - 1)), rel=1e-6
    )


def test_the_threshold_decides_what_has_converged():
    model = make_model(cell="gated", layer_structure=(1,))
    ratios = [
        measure(model, convergence_threshold=t)["converged_ratio"] for t in (1e-12, 1e-2, 0.3, 1e3)
    ]
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.5 < ratios[2]
    assert ratios[3] == 1.0


def test_a_model_that_copies_its_context_never_converges():
    """Comparing a recomputation from the same start would read 100 %."""
    copying = contraction(keep=50.0)
    with torch.no_grad():
        copying.cells()[-1].gate.bias.fill_(3.0)
    assert measure(copying, convergence_tokens=40, convergence_steps=5)["converged_ratio"] == 0.0


def test_the_model_stays_as_it_is():
    model = contraction()
    before = [p.detach().clone() for p in model.parameters()]
    assert 0 < measure(model)["converged_ratio"] < 1
    assert all(map(torch.equal, model.parameters(), before))


def test_splits_are_measured_on_as_many_tokens():
    model = make_model()
    config = make_config({"analysis": {"warmup_tokens": 10}}, convergence_steps=30)
    splits = {"train": TEXT, "validation": TEXT[:40]}  # one passage, from the beginning of both
    found = figures_of_splits(model, splits, config, torch.Generator().manual_seed(0))
    for name in ("effective_rank_ratio", "mean_cosine", "norm_ratio"):
        assert found[name]["train"] == found[name]["validation"]
    assert measure(model)["effective_rank_ratio"] != found["effective_rank_ratio"]["train"]
