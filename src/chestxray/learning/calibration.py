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


def fit_calibration(
    logits: Floats, truth: Bools, fitted_on: str, weights: Floats | None = None
) -> Calibration:
    """Fit probability = sigmoid(logit / temperature + bias) by maximum likelihood.

    ``logits`` (N,), ``truth`` (N,) bool; ``weights`` (N,), how often each counts, with mean 1.
    Platt's smoothed targets (1999; Newton's method after Lin, Lin, Weng 2007) keep the fit finite
    when a threshold separates the truths without error.
    """
    counts = np.ones(len(logits)) if weights is None else weights
    n_positive, n_negative = float(counts[truth].sum()), float(counts[~truth].sum())
    # Newton's method starts where no probability is saturated, or it would not move.
    spread = float(np.sqrt(np.mean(np.square(logits, dtype=float)))) or 1.0
    target = np.where(truth, (n_positive + 1) / (n_positive + 2), 1 / (n_negative + 2))
    design = np.stack([logits / spread, np.ones(len(logits))], axis=1).astype(float)
    line = np.array([1.0, 0.0])  # slope and intercept

    def loss(w: Floats) -> float:
        z = design @ w
        return float(np.mean(counts * (np.logaddexp(0, z) - target * z)))

    for _ in range(100):
        p = sigmoid(design @ line)
        gradient = design.T @ (counts * (p - target))
        if np.abs(gradient).max() < 1e-9 * len(logits):
            break
        hessian = (design * (counts * p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while loss(line - size * step) > loss(line) and size > 1e-6:
            size /= 2
        line = line - size * step
    # Truths that contradict the logits must not turn them round.
    slope = max(float(line[0]), 1e-3) / spread
    return Calibration(
        temperature=1 / slope,
        bias=float(line[1]),
        fitted_on=fitted_on,
        n=len(logits),
        prevalence=n_positive / (n_positive + n_negative),
    )


def fit_operating_points(
    logits: Floats,
    truth: Bools,
    calibration: Calibration,
    n_independent: int,
    weights: Floats | None = None,
    sources: NDArray[np.str_] | None = None,
) -> dict[str, OperatingPoint]:
    """The three operating points on calibrated probabilities of (N,) ``logits``, each of which
    counts as often as ``weights`` (N,) say.

    ``n_independent`` is the number of different radiographs among the N (corrupted copies of one
    are not independent); it decides how far ``balanced`` may go up.

    ``balanced`` is the greatest threshold whose Youden index lies within one standard error of the
    greatest Youden index (the one-standard-error rule of Breiman et al. 1984). Held-out subjects of
    the same hospital leave a range of thresholds that are as good as equal; on other radiographs
    the false positives rise first, and the higher end of that range carries over better. It stops
    where sensitivity falls below ``BALANCED_SENSITIVITY``, unless the best index is beyond that:
    a missed finding is the worse error.

    Where several ``sources`` (N,) have both truths, ``balanced`` has to serve all of them: it is
    the threshold whose Youden index in the source that it serves worst is the greatest.
    """
    probability = sigmoid(calibrated_logit(logits, calibration))
    weights = np.ones(len(logits)) if weights is None else weights
    thresholds = np.unique(probability)  # ascending; label is positive from the threshold up
    sensitivity = 1 - _share_below(thresholds, probability[truth], weights[truth])
    specificity = _share_below(thresholds, probability[~truth], weights[~truth])

    screening = thresholds[sensitivity >= SCREENING_SENSITIVITY].max()
    specific = thresholds[specificity >= RULE_IN_SPECIFICITY]
    rule_in = specific.min() if len(specific) else 1.0

    youden = sensitivity + specificity - 1
    best = int(youden.argmax())
    share = n_independent / len(logits)
    variance = sum(
        rate * (1 - rate) / (share * _effective_n(of_truth))
        for rate, of_truth in (
            (sensitivity[best], weights[truth]),
            (specificity[best], weights[~truth]),
        )
    )
    as_good = youden >= youden[best] - np.sqrt(variance)
    sensitive = sensitivity >= min(BALANCED_SENSITIVITY, sensitivity[best])
    balanced = thresholds[as_good & sensitive].max()
    why = (
        "greatest threshold with a Youden index within one standard error of the best and "
        f"sensitivity ≥ {min(BALANCED_SENSITIVITY, sensitivity[best]):.2f}"
    )
    by_source = _youden_by_source(thresholds, probability, truth, weights, sources)
    if len(by_source) > 1:
        balanced = thresholds[np.min(by_source, axis=0).argmax()]
        why = "threshold with the greatest Youden index in the source that it serves worst"
    chosen = {
        "screening": (
            min(screening, balanced),
            f"greatest threshold with sensitivity ≥ {SCREENING_SENSITIVITY}",
        ),
        "balanced": (balanced, why),
        "rule_in": (
            max(rule_in, balanced),
            f"least threshold with specificity ≥ {RULE_IN_SPECIFICITY}, not below balanced",
        ),
    }
    return {
        name: OperatingPoint(threshold=float(threshold), rule=f"{rule}, on {calibration.fitted_on}")
        for name, (threshold, rule) in chosen.items()
    }


def _youden_by_source(
    thresholds: Floats,
    probability: Floats,
    truth: Bools,
    weights: Floats,
    sources: NDArray[np.str_] | None,
) -> list[Floats]:
    """The Youden index of every threshold in each source that has both truths."""
    found: list[Floats] = []
    for source in np.unique(sources) if sources is not None else ():
        positive, negative = truth & (sources == source), ~truth & (sources == source)
        if positive.any() and negative.any():
            missed = _share_below(thresholds, probability[positive], weights[positive])
            found.append(
                _share_below(thresholds, probability[negative], weights[negative]) - missed
            )
    return found


def _share_below(thresholds: Floats, probability: Floats, weights: Floats) -> Floats:
    """Which share of the weights has a probability below each threshold."""
    order = np.argsort(probability)
    below = np.concatenate([[0.0], np.cumsum(weights[order])])
    share: Floats = below[np.searchsorted(probability[order], thresholds)] / below[-1]
    return share


def _effective_n(weights: Floats) -> float:
    """How many radiographs of equal weight would tell as much (Kish 1965)."""
    return float(weights.sum() ** 2 / (weights**2).sum())
