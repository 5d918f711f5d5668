"""Whether a probability means what it says: slope, intercept, and observed against expected.

Does not: change a probability (``learning`` fits calibrations), or bin (``metrics.ece`` does).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np

from chestxray.evaluation.metrics import (
    NO_FIGURE,
    Bools,
    Figure,
    Floats,
    Measured,
    Resampled,
    ratio,
    resample_all,
)
from chestxray.inference.probability import logit_of, sigmoid

MOST_PARTED = 0.025
"""Where the truths are parted in more of the replicates than this, the interval has no end."""

_NEAREST = 1e-9  # to 0 and 1 that a probability is taken to be, so that its logit is finite
_MOST_STEPS = 50
_LONGEST_STEP = 2.0  # in standard deviations of the logit: Newton's method overshoots beyond
_SMALLEST_STEP = 1e-9


def calibration_of(truth: Bools, probability: Floats, subjects: Sequence[str]) -> dict[str, Figure]:
    """``slope``, ``intercept`` and ``observed_expected`` of ``probability`` (N,).

    Slope and intercept are those of logistic recalibration (Cox 1958): the logit of what is so is
    intercept + slope × the logit of what was said, fitted by maximum likelihood. Ideal are 1 and 0;
    a slope below 1 means that what was said is too sure. ``observed_expected`` is the number that
    have the finding over the sum of the probabilities, ideally 1; below 1 the bundle overstates.
    Where a threshold parts the truths without an error, or one truth is missing, the likelihood of
    slope and intercept has no maximum, and they are None; so they are where that happens in too
    many replicates.
    """
    said = logit_of(np.clip(probability, _NEAREST, 1 - _NEAREST))

    def measure(weights: Floats) -> dict[str, Measured]:
        intercept, slope = recalibration(truth, said, weights)
        return {
            "slope": slope,
            "intercept": intercept,
            "observed_expected": ratio(weights @ truth, weights @ probability),
        }

    found = resample_all(measure, subjects)
    return {
        "slope": _fitted(found["slope"]),
        "intercept": _fitted(found["intercept"]),
        "observed_expected": found["observed_expected"].figure(),
    }


def _fitted(of: Resampled) -> Figure:
    return NO_FIGURE if np.isnan(of.draws).mean() > MOST_PARTED else of.figure()


def recalibration(truth: Bools, logit: Floats, weights: Floats) -> tuple[Measured, Measured]:
    """Intercept and slope by Newton's method, (R,) for weights (R, N); NaN where there is none."""
    spread = float(logit.std()) or 1.0
    x = (logit - logit.mean()) / spread
    share = np.clip(ratio(weights @ truth, weights.sum(axis=-1)), _NEAREST, 1 - _NEAREST)
    intercept = cast("Floats", logit_of(share))
    slope = np.zeros_like(intercept)
    parted = _parted(truth, logit, weights)
    for _ in range(_MOST_STEPS):
        said = sigmoid(intercept[..., np.newaxis] + slope[..., np.newaxis] * x)
        off, certainty = weights * (truth - said), weights * said * (1 - said)
        gradient = off.sum(axis=-1), off @ x
        curvature = certainty.sum(axis=-1), certainty @ x, certainty @ x**2
        determinant = np.maximum(curvature[0] * curvature[2] - curvature[1] ** 2, 1e-300)
        steps = (
            (curvature[2] * gradient[0] - curvature[1] * gradient[1]) / determinant,
            (curvature[0] * gradient[1] - curvature[1] * gradient[0]) / determinant,
        )
        longest = np.maximum(np.abs(steps[0]), np.abs(steps[1]))
        shortened = _LONGEST_STEP / np.maximum(longest, _LONGEST_STEP)
        intercept, slope = intercept + shortened * steps[0], slope + shortened * steps[1]
        if np.all((longest < _SMALLEST_STEP) | parted):
            break
    slope = slope / spread
    intercept = intercept - slope * logit.mean()
    return np.where(parted, np.nan, intercept)[()], np.where(parted, np.nan, slope)[()]


def _parted(truth: Bools, logit: Floats, weights: Floats) -> Bools:
    """Whether a threshold on the logit parts the truths of those that weigh anything."""
    lowest, highest = [], []
    for of_truth in (~truth, truth):
        counts = (weights > 0) & of_truth
        lowest.append(np.where(counts, logit, np.inf).min(axis=-1))
        highest.append(np.where(counts, logit, -np.inf).max(axis=-1))
    parted: Bools = (highest[0] <= lowest[1]) | (highest[1] <= lowest[0])
    return parted
