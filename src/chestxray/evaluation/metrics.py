"""Figures of a binary classifier, with 95 % intervals bootstrapped by subject.

All functions take ``truth`` (N,) bool, True for positive, and optional ``weights`` (N,): how often
each radiograph counts; weights (R, N) give R figures at once. A bootstrap replicate draws subjects
with replacement, and a radiograph then weighs as often as its subject was drawn: radiographs of one
patient are not independent. A figure whose denominator is empty is NaN, and None in a ``Figure``.

Does not: choose thresholds (``learning.calibration``) or read files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Measured = Any
"""A float; (R,) float where the weights are (R, N)."""

FIGURES = ("auroc", "accuracy", "sensitivity", "specificity", "precision", "brier", "ece")
ECE_BINS = 15
N_REPLICATES = 1000


class Figure(TypedDict):
    """A figure and its 95 % confidence interval; None where it cannot be had."""

    value: float | None
    ci_low: float | None
    ci_high: float | None


NO_FIGURE = Figure(value=None, ci_low=None, ci_high=None)


def ratio(numerator: Measured, denominator: Measured) -> Measured:
    """NaN where the denominator is not positive."""
    nothing = np.full(np.shape(denominator), np.nan)
    return np.divide(numerator, denominator, out=nothing, where=np.greater(denominator, 0))[()]


def _weights(truth: Bools, weights: Floats | None) -> Floats:
    return np.ones(len(truth)) if weights is None else weights


def _share(of: Bools, among: Bools, weights: Floats) -> Measured:
    return ratio(weights @ (of & among), weights @ among)


def mean(values: Floats, weights: Floats) -> Measured:
    """Mean of ``values`` (N,)."""
    return ratio(weights @ values, weights.sum(axis=-1))


def auroc(truth: Bools, score: Floats, weights: Floats | None = None) -> Measured:
    """Area under the ROC curve: the chance that a positive scores above a negative, ties half."""
    order = np.argsort(score)
    _, first = np.unique(score[order], return_index=True)  # of each level, so that ties count half
    ordered = _weights(truth, weights)[..., order]
    positive = np.add.reduceat(ordered * truth[order], first, axis=-1)
    negative = np.add.reduceat(ordered * ~truth[order], first, axis=-1)
    below = np.cumsum(negative, axis=-1) - negative
    right = (positive * (below + negative / 2)).sum(axis=-1)
    return ratio(right, positive.sum(axis=-1) * negative.sum(axis=-1))


def accuracy(truth: Bools, positive: Bools, weights: Floats | None = None) -> Measured:
    """Share of right labels; ``positive`` (N,) bool is the label."""
    return _share(positive == truth, np.ones_like(truth), _weights(truth, weights))


def sensitivity(truth: Bools, positive: Bools, weights: Floats | None = None) -> Measured:
    """Share of the positive labelled so (recall)."""
    return _share(positive, truth, _weights(truth, weights))


def specificity(truth: Bools, positive: Bools, weights: Floats | None = None) -> Measured:
    """Share of the negative labelled so."""
    return _share(~positive, ~truth, _weights(truth, weights))


def precision(truth: Bools, positive: Bools, weights: Floats | None = None) -> Measured:
    """Share of those labelled positive that are so (PPV at this folder's prevalence)."""
    return _share(truth, positive, _weights(truth, weights))


def brier(truth: Bools, probability: Floats, weights: Floats | None = None) -> Measured:
    """Mean squared error of the probability (Brier 1950)."""
    weights = _weights(truth, weights)
    return ratio(weights @ (probability - truth) ** 2, weights.sum(axis=-1))


def ece(truth: Bools, probability: Floats, weights: Floats | None = None) -> Measured:
    """Expected calibration error over 15 equal-width bins (Naeini et al. 2015)."""
    weights = _weights(truth, weights)
    in_bin = bin_of(probability)[:, np.newaxis] == np.arange(ECE_BINS)
    gaps = weights @ (in_bin * (probability - truth)[:, np.newaxis])
    return ratio(np.abs(gaps).sum(axis=-1), weights.sum(axis=-1))


def bin_of(probability: Floats) -> NDArray[np.int_]:
    """Which of the 15 equal-width bins a probability lies in; 1 lies in the last."""
    bins: NDArray[np.int_] = np.minimum((probability * ECE_BINS).astype(int), ECE_BINS - 1)
    return bins


def positive_predictive_value(
    sensitivity: Measured, specificity: Measured, prevalence: float
) -> Measured:
    """Share that is positive of those labelled so, where ``prevalence`` of all are (Bayes)."""
    found = sensitivity * prevalence
    return ratio(found, found + (1 - specificity) * (1 - prevalence))


def negative_predictive_value(
    sensitivity: Measured, specificity: Measured, prevalence: float
) -> Measured:
    """Share that is negative of those labelled so, where ``prevalence`` of all are positive."""
    cleared = specificity * (1 - prevalence)
    return ratio(cleared, cleared + (1 - sensitivity) * prevalence)


@dataclass(frozen=True, slots=True, eq=False)
class Resampled:
    """What a figure is, and what it is in each bootstrap replicate, (R,).

    Figures that were resampled with the same subjects and seed are paired: replicate for replicate
    they saw the same draws.
    """

    value: float
    draws: Floats

    def figure(self) -> Figure:
        """With the interval from the 2.5th to the 97.5th percentile of the replicates."""
        return figure_of(self.value, self.draws)


def resampled(
    truth: Bools,
    probability: Floats,
    threshold: float,
    subjects: Sequence[str],
    *,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Resampled]:
    """The seven figures of ``probability`` (N,) at ``threshold``, in ``n_replicates`` draws."""
    return resample_all(
        partial(_seven, truth, probability, threshold),
        subjects,
        n_replicates=n_replicates,
        seed=seed,
    )


def resample_all(
    measure: Callable[[Floats], dict[str, Measured]],
    subjects: Sequence[str],
    *,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Resampled]:
    """What ``measure`` makes of weights, with each radiograph once and in the replicates."""
    values = measure(np.ones(len(subjects)))
    draws = subject_draws(subjects, n_replicates, seed)
    at_once = max(1, 1_000_000 // len(subjects))  # radiographs × replicates: bounds the memory
    parts = [
        measure(np.stack(draws[start : start + at_once]))
        for start in range(0, n_replicates, at_once)
    ]
    return {
        name: Resampled(float(value), np.concatenate([part[name] for part in parts]))
        for name, value in values.items()
    }


def resample(measure: Callable[[Floats], Measured], subjects: Sequence[str]) -> Resampled:
    """As :func:`resample_all`, for one figure."""
    return resample_all(lambda weights: {"": measure(weights)}, subjects)[""]


def _seven(
    truth: Bools, probability: Floats, threshold: float, weights: Floats
) -> dict[str, Measured]:
    positive = probability >= threshold
    return {
        "auroc": auroc(truth, probability, weights),
        "accuracy": accuracy(truth, positive, weights),
        "sensitivity": sensitivity(truth, positive, weights),
        "specificity": specificity(truth, positive, weights),
        "precision": precision(truth, positive, weights),
        "brier": brier(truth, probability, weights),
        "ece": ece(truth, probability, weights),
    }


def figures(
    truth: Bools,
    probability: Floats,
    threshold: float,
    subjects: Sequence[str],
    *,
    n_replicates: int = N_REPLICATES,
    seed: int = 0,
) -> dict[str, Figure]:
    """The seven figures of ``probability`` (N,) at ``threshold`` with intervals."""
    of = resampled(truth, probability, threshold, subjects, n_replicates=n_replicates, seed=seed)
    return {name: figure.figure() for name, figure in of.items()}


def subject_draws(subjects: Sequence[str], n_replicates: int, seed: int) -> list[Floats]:
    """For each replicate, how often each radiograph's subject was drawn, (N,) float."""
    _, subject = np.unique(np.asarray(subjects), return_inverse=True)
    n_subjects = int(subject.max()) + 1
    generator = np.random.default_rng(seed)
    return [
        np.bincount(generator.integers(n_subjects, size=n_subjects), minlength=n_subjects)[
            subject
        ].astype(float)
        for _ in range(n_replicates)
    ]


def figure_of(value: float, draws: Floats) -> Figure:
    """``value`` with the interval from the 2.5th to the 97.5th percentile of ``draws``."""
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(draws) == 0:
        return NO_FIGURE
    low, high = np.percentile(draws, [2.5, 97.5])
    return Figure(value=float(value), ci_low=float(low), ci_high=float(high))
