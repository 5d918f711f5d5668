"""From held-out logits to probabilities and operating points. NumPy only, so that a site needs no
PyTorch to calibrate.

Does not: run a network or read radiographs; it gets logits and truths.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from chestxray.inference.bundle import Calibration, OperatingPoint
from chestxray.inference.probability import calibrated_logit, sigmoid

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

SCREENING_SENSITIVITY = 0.99
RULE_IN_SPECIFICITY = 0.99
BALANCED_SENSITIVITY = 0.97


def fit_calibration(logits: Floats, truth: Bools, fitted_on: str) -> Calibration:
    """Fit probability = sigmoid(logit / temperature + bias) by maximum likelihood.

    ``logits`` (N,), ``truth`` (N,) bool. Platt's smoothed targets (1999; Newton's method after
    Lin, Lin, Weng 2007) keep the fit finite when a threshold separates the truths without error.
    """
    n_positive, n_negative = int(truth.sum()), int((~truth).sum())
    # Newton's method starts where no probability is saturated, or it would not move.
    spread = float(np.sqrt(np.mean(np.square(logits, dtype=float)))) or 1.0
    target = np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    design = np.stack([logits / spread, np.ones(len(logits))], axis=1).astype(float)
    weights = np.array([1.0, 0.0])

    def loss(w: Floats) -> float:
        z = design @ w
        return float(np.mean(np.logaddexp(0, z) - target * z))

    for _ in range(100):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - target)
        if np.abs(gradient).max() < 1e-9 * len(logits):
            break
        hessian = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-6:
            size /= 2
        weights = weights - size * step
    # Truths that contradict the logits must not turn them round.
    slope = max(float(weights[0]), 1e-3) / spread
    return Calibration(
        temperature=1 / slope,
        bias=float(weights[1]),
        fitted_on=fitted_on,
        n=len(logits),
        prevalence=n_positive / len(logits),
    )


def fit_operating_points(
    logits: Floats, truth: Bools, calibration: Calibration, n_independent: int
) -> dict[str, OperatingPoint]:
    """The three operating points on calibrated probabilities of (N,) ``logits``.

    ``n_independent`` is the number of different radiographs among the N (corrupted copies of one
    are not independent); it decides how far ``balanced`` may go up.

    ``balanced`` is the greatest threshold whose Youden index lies within one standard error of the
    greatest Youden index (the one-standard-error rule of Breiman et al. 1984). Held-out subjects of
    the same hospital leave a range of thresholds that are as good as equal; on other radiographs
    the false positives rise first, and the higher end of that range carries over better. It stops
    where sensitivity falls below ``BALANCED_SENSITIVITY``, unless the best index is beyond that:
    a missed finding is the worse error.
    """
    probability = sigmoid(calibrated_logit(logits, calibration))
    thresholds = np.unique(probability)  # ascending; label is positive from the threshold up
    positives, negatives = np.sort(probability[truth]), np.sort(probability[~truth])
    sensitivity = 1 - np.searchsorted(positives, thresholds) / len(positives)
    specificity = np.searchsorted(negatives, thresholds) / len(negatives)

    screening = thresholds[sensitivity >= SCREENING_SENSITIVITY].max()
    specific = thresholds[specificity >= RULE_IN_SPECIFICITY]
    rule_in = specific.min() if len(specific) else 1.0

    youden = sensitivity + specificity - 1
    best = int(youden.argmax())
    share = n_independent / len(logits)
    variance = sum(
        rate * (1 - rate) / (share * n)
        for rate, n in ((sensitivity[best], len(positives)), (specificity[best], len(negatives)))
    )
    as_good = youden >= youden[best] - np.sqrt(variance)
    sensitive = sensitivity >= min(BALANCED_SENSITIVITY, sensitivity[best])
    balanced = thresholds[as_good & sensitive].max()
    floor = f" and sensitivity ≥ {min(BALANCED_SENSITIVITY, sensitivity[best]):.2f}"
    chosen = {
        "screening": (
            min(screening, balanced),
            f"greatest threshold with sensitivity ≥ {SCREENING_SENSITIVITY}",
        ),
        "balanced": (
            balanced,
            f"greatest threshold with a Youden index within one standard error of the best{floor}",
        ),
        "rule_in": (
            max(rule_in, balanced),
            f"least threshold with specificity ≥ {RULE_IN_SPECIFICITY}, not below balanced",
        ),
    }
    return {
        name: OperatingPoint(threshold=float(threshold), rule=f"{rule}, on {calibration.fitted_on}")
        for name, (threshold, rule) in chosen.items()
    }
