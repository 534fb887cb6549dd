"""Every fast form against its plain twin, and which of the two is chosen."""

import math
import os

import pytest
import torch
from markov_text import checkpoint, dataset
from torch import nn
from torch.nn import functional as F

from newllm_core.kernels import compiled, cross_entropy, door
from newllm_core.settings import resolve
from newllm_core.training.phase2.head_loss import plain_cross_entropy
from newllm_core.training.phase2.run import train_phase2

if os.environ.get("NEWLLM_RUN_KERNELS") == "off":
    pytest.skip("NEWLLM_RUN_KERNELS=off: every form is plain", allow_module_level=True)

PLAIN = {"cross-entropy": plain_cross_entropy}
FORMS = [pytest.param(form, id=f"{form.operation}-{form.device}") for form in door.FORMS]
DIMS = 7
needs_library = pytest.mark.skipif(
    not compiled.is_usable(), reason="the loop in C was not compiled when newllm was installed"
)


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


def softmax_gradient_in_torch(logits, targets):
    log_softmax = torch.log_softmax(logits, -1)
    rows = torch.arange(len(targets))
    nats = -log_softmax[rows, targets]
    logits.copy_(log_softmax.exp())
    logits[rows, targets] -= 1
    return nats


@needs_library
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rows", [1, 63])
@pytest.mark.parametrize("vocab", [3, 17, 65])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("logits", [1, 100, 2**25])
@pytest.mark.parametrize("precision", ["float64", "float32", "autocast"])
def test_values_and_every_gradient_are_those_of_the_plain_twin(
    form, rows, vocab, threads, logits, precision, using_threads, monkeypatch
):
    using_threads(threads)
    for name, value in (("LOGITS_AT_ONCE", logits), ("LEAST_LOGITS", min(logits, 50))):
        monkeypatch.setattr(cross_entropy, name, value)
    dtype = torch.float64 if precision == "float64" else torch.float32
    if precision == "float64":  # the loop in C has none: what is around it must be exact
        monkeypatch.setattr(compiled, "softmax_gradient", softmax_gradient_in_torch)
    head, contexts, targets = head_and_rows(rows, vocab, dtype)
    plain = value_and_gradients(PLAIN[form.operation], head.double(), contexts.double(), targets)
    head = head.to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        found = value_and_gradients(form.function, head, contexts, targets)
    close = {"float64": 1e-12, "float32": 2e-6, "autocast": 0.02}[precision]
    for one, other in zip(found, plain, strict=True):
        assert one.dtype == dtype
        scale = other.abs().max().item()
        assert scale > 1e-3
        torch.testing.assert_close(one.double(), other, rtol=close, atol=close * scale)
    assert torch.get_num_threads() == threads


@needs_library
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


@needs_library
@pytest.mark.parametrize("form", FORMS)
def test_no_rows_and_targets_of_another_type(form):
    head, contexts, targets = head_and_rows(6, 20, torch.float32)
    function, wanted = form.function, F.cross_entropy(head(contexts), targets)
    found, _ = function(head.weight, head.bias, contexts, targets.int())
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    loss, nats = function(head.weight, head.bias, contexts[:0], targets[:0])
    assert nats.shape == (0,)
    (loss.nan_to_num() * 0).backward()
    assert not head.weight.grad.any()


@needs_library
@pytest.mark.parametrize("form", FORMS)
def test_probabilities_that_float32_does_not_have(form):
    head = nn.Linear(1, 3)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[0.0], [1.0], [-1.0]]))
        head.bias.zero_()
    contexts = torch.tensor([[500.0], [1.0], [60.0]])
    for target in range(3):
        targets = torch.full((3,), target)
        expected = F.cross_entropy(head(contexts).double(), targets).item()
        found, _ = form.function(head.weight, head.bias, contexts, targets)
        assert found.item() == pytest.approx(expected, rel=1e-6)
    assert expected > 350


def expected_gradient(logits, targets):
    wide = logits.double().requires_grad_()
    nats = F.cross_entropy(wide, targets, reduction="sum")
    nats.backward()
    return nats.item(), wide.grad


@needs_library
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (5, 64), (40, 1000)])
@pytest.mark.parametrize("spread", [0.1, 5.0, 60.0, 3e4])
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 2**-24), (torch.bfloat16, 2**-8)])
def test_softmax_gradient(generator, shape, spread, dtype, unit):
    logits = torch.randn(shape, generator=generator).mul_(spread).to(dtype)
    targets = torch.randint(shape[1], shape[:1], generator=generator)
    nats, gradient = expected_gradient(logits, targets)
    found = cross_entropy._to_gradient(logits, targets).double().sum().item()
    assert found == pytest.approx(nats, rel=1e-6, abs=1e-6)
    # Rounded once to the dtype, after float32 arithmetic.
    torch.testing.assert_close(logits.double(), gradient, rtol=unit + 1e-6, atol=1e-6)


@needs_library
def test_losses_of_vanished_probabilities_are_exact():
    logits = torch.tensor([[0.0, 1000.0, -3e4], [0.0, -200.0, 50.0]])
    nats = compiled.softmax_gradient(logits, torch.tensor([2, 1]))
    assert nats.tolist() == pytest.approx([31000.0, 250.0])
    assert logits.flatten().tolist() == pytest.approx([0, 1, -1, 0, -1, 1], abs=1e-20)


@needs_library
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_stays_visible(bad):
    logits = torch.zeros(2, 40)
    logits[1, 7] = bad
    nats = compiled.softmax_gradient(logits, torch.tensor([0, 0]))
    assert nats.isnan().tolist() == [False, True]


@needs_library
@pytest.mark.parametrize("target", [-1, 5, 2**40])
@pytest.mark.parametrize("dtype", compiled.DTYPES)
def test_a_target_outside_is_refused(target, dtype):
    with pytest.raises(IndexError, match="5 columns"):
        compiled.softmax_gradient(torch.zeros(2, 5, dtype=dtype), torch.tensor([0, target]))


def test_a_library_of_another_newllm_or_machine_is_refused(monkeypatch, tmp_path):
    foreign = tmp_path / "loops.so"
    foreign.write_bytes(b"\x7fELF of another machine")
    for origin in ("libm.so.6", str(foreign)):
        spec = type("Spec", (), {"origin": origin})
        monkeypatch.setattr(compiled, "find_spec", lambda name, spec=spec: spec)
        with pytest.raises(ImportError, match="of another newllm or machine: install newllm again"):
            compiled.library.__wrapped__()


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_chosen_where_it_can_be_used_and_kernels_are_on(form, monkeypatch):
    plain = PLAIN[form.operation]

    def chosen(setting="auto", device=form.device, dtype=form.dtypes[0], operation=form.operation):
        like = torch.empty(0, device=device, dtype=dtype)
        return door.choose(operation, plain, like, setting=setting)

    monkeypatch.setattr(door, "FORMS", [form._replace(is_usable=lambda: True)])
    assert [chosen(dtype=dtype) for dtype in form.dtypes] == [form.function] * len(form.dtypes)
    assert form.operation in door.describe(setting="auto", device=torch.device(form.device))
    for other in (
        {"setting": "off"},
        {"dtype": torch.float64},
        {"device": "meta"},
        {"operation": "sort"},
    ):
        assert chosen(**other) is plain, other
    said = door.describe(setting="off", device=torch.device(form.device))
    assert said == "kernels off: every form is plain"
    monkeypatch.setattr(door, "FORMS", [form._replace(is_usable=lambda: False)])
    assert chosen() is plain


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
        assert (len(calls) > made) == (setting == "auto" and compiled.is_usable())
        losses[setting] = [
            [entry["terms"]["cross-entropy"], entry["validation"]["loss"]]
            for entry in results["epochs"][1:]
        ]
    for found, wanted in zip(losses["auto"], losses["off"], strict=True):
        assert found == pytest.approx(wanted, rel=1e-4)
    assert losses["off"][1][0] < 0.99 * losses["off"][0][0]
