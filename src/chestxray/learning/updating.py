"""Updates a calibration and operating points to a site's radiographs, of which there are few.

The old calibration is where the fit starts from and what it is pulled back to. A good model parts a
site's tens or hundreds of radiographs nearly without error: they say well how far all logits have
moved, and badly how steep the curve is, because the slope hangs on the handful that are wrong.
Fitted freely (``fit_calibration``), it was worse than the old calibration below about 200
radiographs; the shift alone misses a site where the model is surer than it may be. Under a prior
the radiographs decide how much of either there is (measured in ``docs/experiments.md``).

Does not: run a network or read files; nor say whether updating was worth it (``learning_curve``).
"""

from __future__ import annotations

import numpy as np

from chestxray.inference.bundle import Calibration, OperatingPoint
from chestxray.inference.probability import calibrated_logit, sigmoid
from chestxray.learning.calibration import Bools, Floats, fit_operating_points

SLOPE_SD = 0.25
"""How far another site's calibration slope is expected to lie from 1 …"""
INTERCEPT_SD = 1.0
"""… and its intercept from 0: a factor of e in the odds, as when prevalence halves or doubles."""


def update(
    old: Calibration, logits: Floats, truth: Bools, fitted_on: str
) -> tuple[Calibration, dict[str, OperatingPoint]]:
    """The site's calibration and operating points; ``logits`` (N,), ``truth`` (N,) bool, both."""
    calibration = update_calibration(old, logits, truth, fitted_on)
    return calibration, fit_operating_points(logits, truth, calibration, len(logits))


def update_calibration(
    old: Calibration, logits: Floats, truth: Bools, fitted_on: str
) -> Calibration:
    """Calibration slope and intercept (Cox 1958) of ``old`` at the site, maximum a posteriori.

    The new calibrated logit is slope · old calibrated logit + intercept, with normal priors around
    1 and 0. The prior keeps the fit finite where a threshold parts the truths without error, so
    there is no need for Platt's smoothed targets, which alone would cost more than they protect.
    """
    design = np.stack([calibrated_logit(logits, old), np.ones(len(logits))], axis=1)
    prior_mean = np.array([1.0, 0.0])
    prior_precision = np.diag([SLOPE_SD**-2, INTERCEPT_SD**-2])

    def loss(w: Floats) -> float:
        z, away = design @ w, w - prior_mean
        return float(np.sum(np.logaddexp(0, z) - truth * z) + away @ prior_precision @ away / 2)

    weights = prior_mean
    for _ in range(100):  # Newton's method on a strictly convex loss
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - truth) + prior_precision @ (weights - prior_mean)
        hessian = (design * (p * (1 - p))[:, None]).T @ design + prior_precision
        step = np.linalg.solve(hessian, gradient)
        if gradient @ step < 1e-12 * len(logits):
            break
        size = 1.0
        while loss(weights - size * step) > loss(weights) and size > 1e-6:
            size /= 2
        weights = weights - size * step
    # Truths that contradict the logits must not turn them round.
    slope, intercept = max(float(weights[0]), 1e-3), float(weights[1])
    return Calibration(
        temperature=old.temperature / slope,
        bias=slope * old.bias + intercept,
        fitted_on=fitted_on,
        n=len(logits),
        prevalence=float(truth.mean()),
    )
