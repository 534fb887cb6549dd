"""The second device of the tests is as strict as CUDA, and computes what the processor does."""

import pytest
import torch
from torch import nn


@pytest.mark.parametrize(
    "mistake",
    [
        lambda there, here: there + here,
        lambda there, here: there.add_(here),
        lambda there, here: torch.cat([here, there]),
        lambda there, here: nn.Linear(3, 2)(there),
        lambda there, here: here[there.long()],
        lambda there, here: there.numpy(),
        lambda there, here: torch.stack([there[0], here[0]]),
        lambda there, here: here.sum().add_(there.sum()),
        lambda there, here: there.normal_(generator=torch.Generator(here.device)),
        lambda there, here: torch.randperm(3, generator=torch.Generator(), device=there.device),
        lambda there, here: torch.Generator(there.device).set_state(torch.get_rng_state()),
    ],
)
def test_what_cuda_refuses_is_refused(second, mistake):
    here = torch.zeros(3)
    mistake(here.clone(), here)  # on one device it is none
    with pytest.raises((RuntimeError, TypeError)):
        mistake(here.to(second), here)


def test_what_cuda_allows_is_allowed(second):
    there = torch.tensor([1.0, 2.0, 3.0]).to(second)
    found = there[torch.tensor([2, 0])] * torch.tensor(2.0)
    assert found.device.type == second.type
    assert found.tolist() == [6, 2]
    assert there.sum().item() == 6


def test_it_computes_as_the_processor_does(second):
    network = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 1)).double()
    x_NC = torch.randn(5, 4, dtype=torch.float64)
    expected = torch.autograd.grad(network(x_NC).square().sum(), list(network.parameters()))
    moved = network.to(second)
    loss = moved(x_NC.to(second)).square().sum()
    found = torch.autograd.grad(loss, list(moved.parameters()))
    assert [ours.device.type for ours in found] == [second.type] * 4
    assert all(torch.equal(a.cpu(), b) for a, b in zip(found, expected, strict=True))


def test_autocast_makes_its_products_narrow(second):
    x_NC = torch.randn(5, 4).to(second)
    with torch.autocast(second.type, torch.bfloat16):
        product = nn.Linear(4, 2).to(second)(x_NC)
        assert product.dtype is torch.bfloat16
        assert (x_NC + x_NC).dtype is torch.float32
