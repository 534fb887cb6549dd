"""Whether contexts forget where the recurrence was started."""

import pytest
import torch
from naive_phase1 import make_config
from recurrence import D, T, V, draw, draw_tokens, make_model, token_formula

from newllm_core.config import ModelConfig
from newllm_core.model.language_model import LanguageModel
from newllm_core.training.phase1.convergence import converged_ratio
from newllm_core.training.phase1.window import Window
from newllm_core.trajectory.sequential import rollout


def read_window(model, length=T, first=None):
    """A window after one exact reading."""
    start = draw(D, seed=8) if first is None else first
    window = Window(draw_tokens(length), start.to(model.embedding.weight.dtype), "carry")
    window.previous_TC = rollout(model, window.tokens_T[None], window.first_C[None])[0]
    window.readings = 1
    return window


def measure(model, window, seed=0, **phase1):
    config = make_config(**phase1).phase1
    return converged_ratio(model, window, config, torch.Generator().manual_seed(seed))


def contraction():
    """Gates that keep next to nothing, and small weights: contexts forget in a token or two."""
    model = LanguageModel(ModelConfig(context_dim=D, embed_dim=11, cell="gated"), V)
    with torch.no_grad():
        for cell in model.cells():
            cell.gate.bias.fill_(-8.0)
    return model


def expansion():
    shape = {"layer_structure": (1,) * 6, "init_std": 1.0}
    return LanguageModel(ModelConfig(context_dim=D, embed_dim=11, **shape), V)


def test_a_contraction_converges_and_an_expansion_does_not():
    settling, chaotic = contraction(), expansion()
    high = measure(settling, read_window(settling, 200), convergence_steps=50)
    low = measure(chaotic, read_window(chaotic, 200), convergence_steps=50)
    assert high > 0.95
    # The first token after a different start cannot have converged in every passage.
    assert high < 1.0
    assert low < 0.1


@pytest.mark.parametrize("threshold", [1e-2, 0.3, 1.0])
@pytest.mark.parametrize(("tokens", "steps", "passages"), [(30, 10, 3), (1000, 1000, 1), (5, 9, 1)])
def test_the_ratio_equals_an_independent_computation(threshold, tokens, steps, passages):
    model = make_model(cell="gated", layer_structure=(1,))
    window = read_window(model)
    steps_used = min(steps, T)
    noise = torch.randn(
        passages, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64
    )
    scale = sum(float(c.square().sum()) ** 0.5 for c in window.previous_TC) / T
    below = 0
    for number in range(passages):
        begin = (T - steps_used) * number // max(1, passages - 1)
        own = window.first_C if begin == 0 else window.previous_TC[begin - 1]
        other = noise[number] / float(noise[number].square().sum()) ** 0.5 * scale
        for token in window.tokens_T[begin : begin + steps_used].tolist():
            own = token_formula(model, token, own)[-1]
            other = token_formula(model, token, other)[-1]
            below += ((own - other) ** 2).sum().item() / D < threshold
    found = measure(
        model,
        window,
        seed=4,
        convergence_threshold=threshold,
        convergence_tokens=tokens,
        convergence_steps=steps,
    )
    assert found == pytest.approx(below / (passages * steps_used), abs=1e-6)


def test_the_independent_computation_meets_all_kinds_of_ratio():
    model = make_model(cell="gated", layer_structure=(1,))
    window = read_window(model)
    ratios = [measure(model, window, convergence_threshold=t) for t in (1e-12, 1e-2, 0.3, 1e3)]
    assert ratios == sorted(ratios)
    assert ratios[0] < 0.2 < ratios[2]
    assert ratios[3] == 1.0


def test_a_model_that_copies_its_context_never_converges():
    """Comparing a recomputation from the same start would read 100 %."""
    model = contraction()
    with torch.no_grad():
        for cell in model.cells():
            cell.gate.bias.fill_(50.0)
    assert measure(model, read_window(model)) == 0.0


def test_zero_contexts_are_not_random_states():
    """The other start has the scale of the contexts: around zero there is nothing to forget."""
    model = contraction()
    with torch.no_grad():
        for parameter in model.blocks.parameters():
            parameter.zero_()
    assert measure(model, read_window(model, first=torch.zeros(D))) == 1.0


def test_neither_model_nor_window_changes():
    model = contraction()
    window = read_window(model)
    before = window.previous_TC.clone(), [p.detach().clone() for p in model.parameters()]
    ratio = measure(model, window)
    assert 0 < ratio < 1
    assert torch.equal(window.previous_TC, before[0])
    assert all(map(torch.equal, model.parameters(), before[1]))
