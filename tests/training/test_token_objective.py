"""The objective that asks for tokens, beside its formula in loops."""

import math

import pytest
import torch
from torch.nn import functional as F

from newllm_core.objectives.base import NO_TOKEN
from newllm_core.objectives.tokens import Tokens, TokensOptions

N, C, E, V = 7, 5, 4, 9


def make(**options):
    objective = Tokens(C, E, V, TokensOptions(**options)).double()
    objective.initialise(torch.Generator().manual_seed(0))
    return objective


def given(objective, seed=1):
    generator = torch.Generator().manual_seed(seed)
    read = {place: torch.randint(0, V, (N,), generator=generator) for place in objective.places} | {
        "embedding_matrix": torch.randn(V, E, generator=generator).double()
    }
    contexts = torch.randn(2, N, C, generator=generator).double()
    embedded = torch.zeros(N, E).double()
    return {"final_NC": contexts[0], "incoming_NC": contexts[1], "embedded_NE": embedded, **read}


def formula(objective, values):
    options = objective.options
    rows = F.layer_norm(values["embedding_matrix"], (E,))
    ids = torch.stack([values[place] for place in objective.places])
    candidates = sorted(set(ids.flatten().tolist()) - {NO_TOKEN})
    losses = []
    for k in range(len(ids)):
        for n in range(N):
            token = int(ids[k, n])
            if token == NO_TOKEN:
                continue
            guess = (objective.guess.weight @ values["final_NC"][n] + objective.guess.bias)[
                k * E : (k + 1) * E
            ]
            chances = [
                math.exp(F.cosine_similarity(guess, rows[j], dim=0).item() / options.temperature)
                for j in candidates
            ]
            losses.append(-math.log(chances[candidates.index(token)] / sum(chances)))
    first, _, second = objective.before
    hidden = F.relu(values["final_NC"] @ first.weight.T + first.bias)
    error = hidden @ second.weight.T + second.bias - values["incoming_NC"]
    length = max(float((values["incoming_NC"] ** 2).sum()), N * C / 1000)
    error = float((error**2).sum().detach()) / length
    return sum(losses) / len(losses) / math.log(len(candidates)) + options.context_weight * error


@pytest.mark.parametrize(
    "options",
    [{}, {"past": 1}, {"past": 3, "future": 2, "temperature": 0.5, "context_weight": 2.0}],
)
def test_the_loss_is_that_of_the_formula_whatever_tokens_are_missing(options, exact_device):
    objective = make(**options).to(exact_device)
    values = {name: value.to(exact_device) for name, value in given(objective).items()}
    last = objective.places[-1]
    values[last][2:5] = NO_TOKEN
    for scale in (1, 0.1, 0):
        values["incoming_NC"] = values["incoming_NC"] * scale
        found = objective.loss(**values).item()
        assert found == pytest.approx(formula(objective, values), rel=1e-9)


def test_it_asks_for_the_token_itself_those_before_and_those_to_come():
    places = [f"tokens_at:{k}" for k in ("-2", "-1", "0", "+1")]
    assert make(past=3, future=1).places == places
    assert make().places[0] == "tokens_at:-7"


def test_a_context_that_tells_its_tokens_has_no_loss_and_its_length_does_not_matter():
    objective = make(past=1, context_weight=0.0)
    values = given(objective)
    values["embedding_matrix"] = torch.eye(V, E).double().flip(0)[:V] + values["embedding_matrix"]
    rows = F.layer_norm(values["embedding_matrix"], (E,))[values["tokens_at:0"]]
    with torch.no_grad():
        objective.guess.weight.zero_()[:, :E] = torch.eye(E)
        objective.guess.bias.zero_()
    told = torch.cat([rows, torch.zeros(N, C - E)], dim=1)
    loss = objective.loss(**values | {"final_NC": told}).item()
    assert loss < 0.2
    assert objective.loss(**values | {"final_NC": 100 * told}).item() == pytest.approx(loss)


def test_the_gradient_reaches_contexts_and_every_parameter():
    objective = make(past=2)
    values = given(objective)
    values["final_NC"].requires_grad_()
    objective.loss(**values).backward()
    assert values["final_NC"].grad.abs().min() > 0
    assert all(parameter.grad.abs().max() > 0 for parameter in objective.parameters())


def test_without_any_token_there_is_nothing_to_choose():
    objective = make(past=2, context_weight=0.0)
    values = given(objective)
    for place in objective.places:
        values[place][:] = NO_TOKEN
    values["final_NC"].requires_grad_()
    loss = objective.loss(**values)
    loss.backward()
    assert loss.item() == 0
    assert values["final_NC"].grad.tolist() == torch.zeros(N, C).tolist()
