"""Figures of a binary classifier, with 95 % intervals bootstrapped by subject.

All functions take ``truth`` (N,) bool, True for PNEUMONIA, and optional ``weights`` (N,): how often
each radiograph counts. A bootstrap replicate draws subjects with replacement, and a radiograph
then weighs as often as its subject was drawn: radiographs of one child are not independent.
A figure whose denominator is empty is NaN.

Does not: choose thresholds (``learning.calibration``) or read files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

ECE_BINS = 15


class Figure(TypedDict):
    """A figure and its 95 % confidence interval; None where it cannot be had."""

    value: float | None
    ci_low: float | None
    ci_high: float | None


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else float("nan")


def _weights(truth: Bools, weights: Floats | None) -> Floats:
    return np.ones(len(truth)) if weights is None else weights


def auroc(truth: Bools, score: Floats, weights: Floats | None = None) -> float:
    """Area under the ROC curve: the chance that a PNEUMONIA scores above a NORMAL, ties half."""
    weights = _weights(truth, weights)
    _, level = np.unique(score, return_inverse=True)
    positive = np.bincount(level, weights * truth)
    negative = np.bincount(level, weights * ~truth)
    below = np.cumsum(negative) - negative
    return _ratio((positive * (below + negative / 2)).sum(), positive.sum() * negative.sum())


def accuracy(truth: Bools, positive: Bools, weights: Floats | None = None) -> float:
    """Share of right labels; ``positive`` (N,) bool is the label."""
    weights = _weights(truth, weights)
    return _ratio(weights[positive == truth].sum(), weights.sum())


def sensitivity(truth: Bools, positive: Bools, weights: Floats | None = None) -> float:
    """Share of PNEUMONIA labelled so (recall)."""
    weights = _weights(truth, weights)
    return _ratio(weights[truth & positive].sum(), weights[truth].sum())


def specificity(truth: Bools, positive: Bools, weights: Floats | None = None) -> float:
    """Share of NORMAL labelled so."""
    weights = _weights(truth, weights)
    return _ratio(weights[~truth & ~positive].sum(), weights[~truth].sum())


def precision(truth: Bools, positive: Bools, weights: Floats | None = None) -> float:
    """Share of those labelled PNEUMONIA that are so (PPV at this folder's prevalence)."""
    weights = _weights(truth, weights)
    return _ratio(weights[truth & positive].sum(), weights[positive].sum())


def brier(truth: Bools, probability: Floats, weights: Floats | None = None) -> float:
    """Mean squared error of the probability (Brier 1950)."""
    weights = _weights(truth, weights)
    return _ratio((weights * (probability - truth) ** 2).sum(), weights.sum())


def ece(truth: Bools, probability: Floats, weights: Floats | None = None) -> float:
    """Expected calibration error over 15 equal-width bins (Naeini et al. 2015)."""
    weights = _weights(truth, weights)
    bins = np.minimum((probability * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, weights * (probability - truth), minlength=ECE_BINS)
    return _ratio(np.abs(gaps).sum(), weights.sum())


def figures(
    truth: Bools,
    probability: Floats,
    threshold: float,
    subjects: Sequence[str],
    *,
    n_replicates: int = 1000,
    seed: int = 0,
) -> dict[str, Figure]:
    """All figures of ``probability`` (N,) at ``threshold`` with intervals.

    The interval is the 2.5th to the 97.5th percentile over ``n_replicates`` draws of subjects.
    """
    positive = probability >= threshold
    computed: dict[str, Callable[[Floats | None], float]] = {
        "auroc": lambda w: auroc(truth, probability, w),
        "accuracy": lambda w: accuracy(truth, positive, w),
        "sensitivity": lambda w: sensitivity(truth, positive, w),
        "specificity": lambda w: specificity(truth, positive, w),
        "precision": lambda w: precision(truth, positive, w),
        "brier": lambda w: brier(truth, probability, w),
        "ece": lambda w: ece(truth, probability, w),
    }
    draws = {name: np.empty(n_replicates) for name in computed}
    for replicate, weights in enumerate(subject_draws(subjects, n_replicates, seed)):
        for name, compute in computed.items():
            draws[name][replicate] = compute(weights)
    return {name: _figure(compute(None), draws[name]) for name, compute in computed.items()}


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


def _figure(value: float, draws: Floats) -> Figure:
    draws = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(draws) == 0:
        return Figure(value=None, ci_low=None, ci_high=None)
    low, high = np.percentile(draws, [2.5, 97.5])
    return Figure(value=value, ci_low=float(low), ci_high=float(high))
