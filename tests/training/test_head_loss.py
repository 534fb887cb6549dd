"""Cross-entropy whose logits are made again where they are many."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from newllm_core.training.phase2 import terms
from newllm_core.training.phase2.terms import plain_cross_entropy

N, C, V = 61, 7, 53


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that an operation returned, and all that were made."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return made


def loss_and_gradients(device, dtype=torch.float64):
    """The loss, nats, every gradient, and the largest tensor; the loss has a factor behind it."""
    torch.manual_seed(0)
    head = nn.Linear(C, V).to(dtype)
    contexts_NC = torch.randn(N, C, dtype=dtype).to(device).requires_grad_()
    targets_N = torch.randint(V, (N,)).to(device)
    head.to(device)
    with Largest() as seen:
        loss, nats_N = plain_cross_entropy(head, contexts_NC, targets_N)
        (3 * loss).backward()
    found = [loss.detach(), nats_N, contexts_NC.grad, head.weight.grad, head.bias.grad]
    return found, seen.size


@pytest.mark.parametrize("rows", [1, 7, 60])
def test_chunks_have_the_same_values_and_gradients_and_less_memory(rows, exact_device, monkeypatch):
    plain, whole = loss_and_gradients(exact_device)
    monkeypatch.setattr(terms, "LOGITS_KEPT", rows * V)
    found, largest = loss_and_gradients(exact_device)
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    assert not found[1].requires_grad
    assert whole == N * V
    assert largest == max(rows * V, N * C)


def test_chunks_round_as_autocast_asks_also_when_they_are_made_again(device, monkeypatch):
    plain, _ = loss_and_gradients(device, torch.float32)
    monkeypatch.setattr(terms, "LOGITS_KEPT", 7 * V)
    with torch.autocast(device.type, torch.bfloat16):
        found, _ = loss_and_gradients(device, torch.float32)
    errors = [float((a - b).norm() / b.norm()) for a, b in zip(found, plain, strict=True)]
    assert all(1e-6 < error < 0.02 for error in errors)
