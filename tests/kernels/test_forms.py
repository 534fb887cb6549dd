"""Every fast form against its plain twin, and which of the two is chosen."""

import math
import os

import pytest
import torch
from markov_text import checkpoint, dataset
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from newllm_core.kernels import cross_entropy, door
from newllm_core.settings import resolve
from newllm_core.training.phase2.head_loss import plain_cross_entropy
from newllm_core.training.phase2.run import train_phase2

if os.environ.get("NEWLLM_RUN_KERNELS") == "off":
    pytest.skip("NEWLLM_RUN_KERNELS=off: every form is plain", allow_module_level=True)

PLAIN = {"cross-entropy": plain_cross_entropy}
FORMS = [pytest.param(form, id=form.operation) for form in door.FORMS]
DIMS = 7


@pytest.fixture
def at_once(monkeypatch):
    """Set how many logits exist at a time."""

    def set_to(logits):
        found = dict.fromkeys(cross_entropy.LOGITS_AT_ONCE, logits)
        monkeypatch.setattr(cross_entropy, "LOGITS_AT_ONCE", found)

    return set_to


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that an operation returned."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return made


def head_and_rows(rows, vocab, dtype, spread=1.0):
    generator = torch.Generator().manual_seed(rows + vocab)
    head = nn.Linear(DIMS, vocab).to(dtype)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.normal_(0, spread, generator=generator)
    contexts = torch.randn(rows, DIMS, generator=generator, dtype=dtype)
    return head, contexts, torch.randint(vocab, (rows,), generator=generator)


def value_and_gradients(function, head, contexts, targets):
    contexts = contexts.clone().requires_grad_()
    loss, nats = function(head.weight, head.bias, contexts, targets)
    assert not nats.requires_grad
    # Scaled, so that the incoming gradient is not one.
    return loss, nats, *torch.autograd.grad(1.7 * loss, (contexts, head.weight, head.bias))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 63])
@pytest.mark.parametrize("vocab", [3, 17, 65])
@pytest.mark.parametrize("logits", [1, 100, 2**25])
@pytest.mark.parametrize("precision", ["float64", "float32", "autocast"])
def test_values_and_every_gradient_are_those_of_the_plain_twin(
    form, rows, vocab, logits, precision, exact_device, at_once
):
    at_once(logits)
    dtype = torch.float64 if precision == "float64" else torch.float32
    head, *given = head_and_rows(rows, vocab, dtype)
    contexts, targets = (values.to(exact_device) for values in given)
    head.to(exact_device)
    plain = value_and_gradients(PLAIN[form.operation], head.double(), contexts.double(), targets)
    head = head.to(dtype)
    with torch.autocast(exact_device.type, torch.bfloat16, enabled=precision == "autocast"):
        found = value_and_gradients(form.function, head, contexts, targets)
    close = {"float64": 1e-12, "float32": 2e-6, "autocast": 0.02}[precision]
    for one, other in zip(found, plain, strict=True):
        assert one.dtype == dtype
        scale = other.abs().max().item()
        assert scale > 1e-3
        torch.testing.assert_close(one.double(), other, rtol=close, atol=close * scale)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 7, 60])
def test_no_more_logits_exist_than_are_allowed(form, rows, device, at_once):
    vocab = cross_entropy.ROWS_OF_HEAD
    head, *given = head_and_rows(61, vocab, torch.float32)
    contexts, targets = (values.to(device) for values in given)
    head.to(device)
    sizes = []
    for logits in (2**25, rows * vocab):
        at_once(logits)
        with Largest() as seen:
            value_and_gradients(form.function, head, contexts, targets)
        sizes.append(seen.size)
    # What the head's matrix takes with its bias is there whatever is allowed.
    assert sizes[0] == 61 * vocab
    assert sizes[1] == max(rows * vocab, (DIMS + cross_entropy.COLUMNS_ADDED) * vocab)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_that_nobody_wants_are_not_made(form):
    head, contexts, targets = head_and_rows(5, 9, torch.float32)
    head.weight.requires_grad_(False)
    loss, _ = form.function(head.weight, head.bias, contexts, targets)
    loss.backward()
    assert loss.item() == pytest.approx(F.cross_entropy(head(contexts), targets).item(), rel=1e-5)
    assert head.weight.grad is None
    wanted = torch.autograd.grad(F.cross_entropy(head(contexts), targets), head.bias)[0]
    torch.testing.assert_close(head.bias.grad, wanted)


@pytest.mark.parametrize("form", FORMS)
def test_no_rows(form):
    head, contexts, targets = head_and_rows(6, 20, torch.float32)
    loss, nats = form.function(head.weight, head.bias, contexts[:0], targets[:0])
    assert nats.shape == (0,)
    (loss.nan_to_num() * 0).backward()
    assert not head.weight.grad.any()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("autocast", [False, True])
def test_probabilities_that_float32_does_not_have(form, autocast):
    head = nn.Linear(1, 3)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [1.0], [-1.0]]))
        head.bias.zero_()
    contexts = torch.tensor([[500.0], [1.0], [60.0], [-30000.0]])
    for target in range(3):
        targets = torch.full((4,), target)
        expected = F.cross_entropy(head(contexts).double(), targets, reduction="none")
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            _, *found = value_and_gradients(form.function, head, contexts, targets)
        nats, of_contexts, of_weight, of_bias = found
        most = -math.log(torch.finfo(torch.float32).tiny)
        close = 0.004 if autocast else 1e-5
        torch.testing.assert_close(nats.double(), expected.clamp(max=most), rtol=0, atol=close)
        assert all(gradient.isfinite().all() for gradient in (of_contexts, of_weight, of_bias))
    assert expected.max() > most


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_visible(form, bad):
    head, contexts, targets = head_and_rows(2, 40, torch.float32)
    contexts[1, 3] = bad
    loss, nats = form.function(head.weight, head.bias, contexts, targets)
    assert nats.isnan().tolist() == [False, True]
    assert loss.isnan()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", [-1, 5, 2**40])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_target_outside_is_refused(form, target, autocast):
    head, contexts, _ = head_and_rows(2, 5, torch.float32)
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
        pytest.raises(RuntimeError, match=f"index {target} is out of bounds"),
    ):
        form.function(head.weight, head.bias, contexts, torch.tensor([0, target]))


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_chosen_where_it_can_be_used_and_kernels_are_on(form, monkeypatch):
    plain = PLAIN[form.operation]

    def chosen(setting="auto", device="cpu", dtype=form.dtypes[0], operation=form.operation):
        like = torch.empty(0, device=device, dtype=dtype)
        return door.choose(operation, plain, like, setting=setting)

    monkeypatch.setattr(door, "FORMS", [form])
    assert [chosen(dtype=dtype) for dtype in form.dtypes] == [form.function] * len(form.dtypes)
    assert form.operation in door.describe(setting="auto", device=torch.device("cpu"))
    for other in (
        {"setting": "off"},
        {"dtype": torch.float64},
        {"device": "meta"},
        {"operation": "sort"},
    ):
        assert chosen(**other) is plain, other
    said = door.describe(setting="off", device=torch.device("cpu"))
    assert said == "kernels off: every form is plain"


@pytest.mark.parametrize("freeze", [False, True])
def test_turning_forms_off_changes_no_loss_beyond_rounding(freeze, monkeypatch):
    (form,), calls = door.FORMS, []
    counting = form._replace(function=lambda *given: calls.append(1) or form.function(*given))
    monkeypatch.setattr(door, "FORMS", [counting])
    losses = {}
    for setting in ("auto", "off"):
        section = {"epochs": 2, "num_streams": 8, "batch_tokens": 100, "learning_rate": 0.03}
        config = resolve(
            {"phase2": section | {"freeze_context": freeze}, "run": {"kernels": setting}}
        )
        made = len(calls)
        results = train_phase2(checkpoint(), dataset(documents=6), config).results
        assert (len(calls) > made) == (setting == "auto")
        losses[setting] = [
            [entry["terms"]["cross-entropy"], entry["validation"]["loss"]]
            for entry in results["epochs"][1:]
        ]
    for found, wanted in zip(losses["auto"], losses["off"], strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    assert losses["off"][1][0] < 0.99 * losses["off"][0][0]
