"""What a linear readout gives back of earlier tokens: token memory and memory capacity.

Token memory is how many tokens back can be read from a context by a linear probe. For every lag k
it guesses x_{t-k} from c_t. The classes are the most frequent tokens and one for all others. The
probe is linear discriminant analysis, fitted in closed form, so that no optimizer has a say:

    log q(y | c) = log π_y + τ (μ_y' Σ⁻¹ c - μ_y' Σ⁻¹ μ_y / 2) + const
    p(y | c) = 0.99 q(y | c) + 0.01 π_y

It is fitted on some passages and judged on others. The temperature τ keeps a probe of many
dimensions from being too sure of itself; the mixture bounds what one mistake costs. The probe finds
about nine tenths of what multinomial logistic regression finds.

A lag remembers `(H - CE) / H` tokens, at least 0: CE is the cross-entropy of the probe and H that
of the class frequencies of the fitted passages, which is what a guess without a context reaches.

Memory capacity (Jaeger 2001) is the sum over lags k >= 1 of the squared correlation of the input k
steps back with what a ridge regression reads of it, on passages it was not fitted on. A delay line
of n + 1 places has n, and no state of n numbers more than n of independent inputs. Inputs are what
token ids stand for, F numbers each, weighted by their variance; without such numbers each frequent
token is one, which is 1 where it was read.

Shapes: P passages, T tokens, N contexts, D numbers kept of a context, Y classes, K lags.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.summary import mean_and_error

# Every fourth passage is held out; shorter texts are cut until there are eight.
HELD_OUT_EVERY = 4
LEAST_PASSAGES = 8
# Share of the mean variance added to the diagonal: without it a class that determines a direction
# exactly would make the covariance singular.
RIDGE = 1e-3
CHANCE = 0.01
# The best temperature, as the best ridge, is chosen on one half of the passages that are held out
# and used on the other half, and the reverse.
with torch.device("cpu"):  # whatever the device that is set when this is imported
    TEMPERATURES = torch.cat([torch.zeros(1), torch.logspace(-3, 1, 17)]).double()
# Of the largest variance of a direction.
RIDGES = (1e-10, 1e-4)


@dataclass(frozen=True)
class Labelled:
    """Contexts with what was read before them."""

    contexts: Tensor  # [P, T, D]
    classes: Tensor  # for each lag that of the token so many steps back [K, P, T]
    num_classes: int
    types: Tensor  # ids of the tokens that have a class of their own, in the order of classes


def label(contexts_PTD: Tensor, tokens_PS: Tensor, *, lags: int, frequent: int) -> Labelled:
    """Give every context [P, T, D] the classes of the last tokens.

    `tokens_PS` are those T of every passage and what was read before them. `lags` include 0, the
    token just read; there are fewer if passages are short. Each of the `frequent` ones has a class.
    """
    length = contexts_PTD.shape[1]
    before = tokens_PS.shape[1] - length
    lags = max(1, min(lags, before + length // 2))
    # The first contexts of a text without a warm-up have nothing so far back: they are left out.
    skipped = max(0, lags - 1 - before)
    types, place_PS, counts = torch.unique(tokens_PS, return_inverse=True, return_counts=True)
    order = counts.argsort(descending=True, stable=True)
    chosen = types[order[:frequent]]
    # The rank of each type among all is its class, but that the rare ones share one.
    classes_PS = order.argsort()[place_PS].clamp(max=len(chosen))
    first, last = before + skipped, tokens_PS.shape[1]
    return Labelled(
        _cut(contexts_PTD[:, skipped:]),
        torch.stack([_cut(classes_PS[:, first - lag : last - lag]) for lag in range(lags)]),
        len(chosen) + int(len(types) > len(chosen)),
        chosen,
    )


def token_memory(labelled: Labelled) -> dict[str, Any]:
    """Return tokens remembered `by_lag` 0, 1, … and in `total`, with `stderr` over passages."""
    fitted, judged = _divided(labelled)
    probe = _Fitting(fitted.contexts.flatten(0, 1).double())
    seen_PTD = judged.contexts
    by_lag, gains = [], []
    for classes_PT, judged_PT in zip(fitted.classes, judged.classes, strict=True):
        weights_YD, offset_Y, log_prior_Y = probe.fit(classes_PT.flatten(), labelled.num_classes)
        scores_PTY = seen_PTD @ weights_YD.T.to(seen_PTD.dtype) - offset_Y.to(seen_PTD.dtype)
        told_P, prior = _held_out_gain(scores_PTY, log_prior_Y, judged_PT)
        by_lag.append(max(0.0, float(told_P.mean()) / prior) if prior > 0 else 0.0)
        gains.append(told_P / prior if prior > 0 else torch.zeros_like(told_P))
    kept = torch.stack([gain for gain, lag in zip(gains, by_lag, strict=True) if lag > 0] or gains)
    return {
        "by_lag": by_lag,
        "total": sum(by_lag),
        "stderr": mean_and_error(kept.sum(dim=0)[:, None])["stderr"],
        "num_classes": labelled.num_classes,
    }


def _divided(labelled: Labelled) -> tuple[Labelled, Labelled]:
    """Return the passages that probes are fitted on, and those that they are judged on."""
    held = torch.zeros(len(labelled.contexts), dtype=torch.bool)
    held[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY] = True
    contexts, classes = labelled.contexts, labelled.classes
    return (
        replace(labelled, contexts=contexts[~held], classes=classes[:, ~held]),
        replace(labelled, contexts=contexts[held], classes=classes[:, held]),
    )


def _halves(values: Tensor) -> list[slice]:
    """Return two halves of passages; of a single one, that twice."""
    return [slice(0, None, 2), slice(1, None, 2)] if len(values) > 1 else [slice(None)] * 2


class _Fitting:
    """What the probes of every lag share: the contexts, centred, and their covariance."""

    def __init__(self, contexts_ND: Tensor) -> None:
        self.mean_D = contexts_ND.mean(dim=0)
        self.centred_ND = contexts_ND - self.mean_D
        self.scatter_DD = self.centred_ND.T @ self.centred_ND

    def sums(self, classes_N: Tensor, num_classes: int) -> Tensor:
        """Return the sum of the contexts of every class [Y, D]."""
        sums_YD = self.centred_ND.new_zeros(num_classes, self.centred_ND.shape[1])
        return sums_YD.index_add_(0, classes_N, self.centred_ND)

    def fit(self, classes_N: Tensor, num_classes: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return weights [Y, D] and offset [Y] of the probe of a lag, and log frequencies [Y]."""
        count = len(self.centred_ND)
        counts_Y = torch.bincount(classes_N, minlength=num_classes).double()
        sums_YD = self.sums(classes_N, num_classes)
        means_YD = sums_YD / counts_Y.clamp(min=1)[:, None]
        within_DD = (self.scatter_DD - sums_YD.T @ means_YD) / count
        variance = float(self.scatter_DD.diagonal().mean()) / count
        within_DD.diagonal().add_(max(RIDGE * variance, 1e-300))
        factor_DD, _ = torch.linalg.cholesky_ex(within_DD)
        weights_YD = torch.cholesky_solve(means_YD.T, factor_DD).T
        offset_Y = (weights_YD * means_YD).sum(dim=1) / 2
        # A class that was never seen keeps a small share instead of an infinite surprise.
        log_prior_Y = ((counts_Y + 0.5) / (counts_Y + 0.5).sum()).log()
        return weights_YD, offset_Y + weights_YD @ self.mean_D, log_prior_Y


def _held_out_gain(
    scores_PTY: Tensor, log_prior_Y: Tensor, classes_PT: Tensor
) -> tuple[Tensor, float]:
    """Nats that the probe saves per token of every passage [P], and the entropy H without it."""
    prior_PT = -log_prior_Y[classes_PT]
    gain_P = torch.zeros(len(classes_PT), dtype=torch.float64, device=classes_PT.device)
    halves = _halves(classes_PT)
    for chosen_on, used_on in (halves, halves[::-1]):
        temperature = _best_temperature(scores_PTY[chosen_on], log_prior_Y, classes_PT[chosen_on])
        loss_PT = _losses(scores_PTY[used_on], log_prior_Y, classes_PT[used_on], temperature)
        gain_P[used_on] = (prior_PT[used_on] - loss_PT).mean(dim=1)
    return gain_P, float(prior_PT.mean())


def _best_temperature(scores_PTY: Tensor, log_prior_Y: Tensor, classes_PT: Tensor) -> float:
    """Bisection on the temperatures: the loss falls, then rises with τ."""

    @cache
    def loss(i: int) -> float:
        losses_PT = _losses(scores_PTY, log_prior_Y, classes_PT, float(TEMPERATURES[i]))
        return float(losses_PT.mean())

    low, high = 0, len(TEMPERATURES) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if loss(middle) <= loss(middle + 1) else (middle + 1, high)
    return float(TEMPERATURES[min((low, high), key=loss)])


def _losses(
    scores_PTY: Tensor, log_prior_Y: Tensor, classes_PT: Tensor, temperature: float
) -> Tensor:
    prior_Y = log_prior_Y.to(scores_PTY.dtype)
    logits_PTY = torch.add(prior_Y, scores_PTY, alpha=temperature)
    picked_PT = logits_PTY.gather(-1, classes_PT[..., None])[..., 0]
    told_PT = (picked_PT - logits_PTY.logsumexp(dim=-1)).double()
    prior_PT = log_prior_Y.double()[classes_PT]
    return -torch.logaddexp(told_PT + math.log(1 - CHANCE), prior_PT + math.log(CHANCE))


def _cut(values: Tensor) -> Tensor:
    """Return passages [P, T, ...] cut in time until there are enough to hold some out."""
    parts = -(-LEAST_PASSAGES // len(values))
    if parts == 1 or values.shape[1] < parts:
        return values
    length = values.shape[1] // parts
    return values[:, : parts * length].reshape(len(values) * parts, length, *values.shape[2:])


def memory_capacity(labelled: Labelled, values_YF: Tensor | None = None) -> dict[str, Any]:
    """Return squared correlations `by_lag` 0, 1, …, and their `total` without 0.

    Tokens of a class stand for `values_YF`.
    """
    classes = labelled.num_classes
    if values_YF is None:
        values_YF = torch.eye(classes, dtype=torch.float64, device=labelled.contexts.device)
    fitted, judged = _divided(labelled)
    probe = _Fitting(fitted.contexts.flatten(0, 1).double())
    variance_D, basis_DD = torch.linalg.eigh(probe.scatter_DD)
    seen_PTD = (judged.contexts.double() - probe.mean_D) @ basis_DD
    by_lag = []
    for fitted_PT, judged_PT in zip(fitted.classes, judged.classes, strict=True):
        along_DF = basis_DD.T @ (probe.sums(fitted_PT.flatten(), classes).T @ values_YF)
        by_lag.append(_worth(seen_PTD, along_DF, variance_D, values_YF[judged_PT]))
    return {"by_lag": by_lag, "total": sum(by_lag[1:])}


def _worth(seen_PTD: Tensor, along_DF: Tensor, variance_D: Tensor, wanted_PTF: Tensor) -> float:
    largest = float(variance_D[-1].clamp(min=1e-300))
    told = [
        seen_PTD @ (along_DF / (variance_D.clamp(min=0) + ridge * largest)[:, None])
        for ridge in RIDGES
    ]
    first, second = (
        [_correlation(told_PTF[half], wanted_PTF[half]) for told_PTF in told]
        for half in _halves(seen_PTD)
    )
    return (first[second.index(max(second))] + second[first.index(max(first))]) / 2


def _correlation(told_PTF: Tensor, wanted_PTF: Tensor) -> float:
    """Return squared correlations without those of chance, weighted by the variances wanted."""
    told_NF, wanted_NF = (
        x.flatten(0, -2) - x.flatten(0, -2).mean(0) for x in (told_PTF, wanted_PTF)
    )
    both_F = (told_NF * wanted_NF).sum(dim=0).square()
    told_F, wanted_F = told_NF.square().sum(dim=0), wanted_NF.square().sum(dim=0)
    # both / (told wanted), times wanted, over the sum of wanted.
    shares_F = torch.where(told_F > 0, both_F / told_F.clamp(min=1e-300), 0.0)
    share = float(shares_F.sum() / wanted_F.sum().clamp(min=1e-300))
    return max(0.0, share - (1 - share) / max(1, len(told_NF) - 2))
