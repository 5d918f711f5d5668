"""What a logit means: the calibrated logit, its probability, and back.

Does not: fit a calibration (``learning``) or decide on a label (``predictor``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from chestxray.inference.bundle import Calibration


def calibrated_logit(logit: ArrayLike, calibration: Calibration) -> NDArray[np.float64]:
    """logit / temperature + bias (Platt 1999), any shape, float64."""
    return np.asarray(logit, np.float64) / calibration.temperature + calibration.bias


def sigmoid(logit: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(-logit)) in [0, 1], any shape, without overflow at either end."""
    x = np.asarray(logit, np.float64)
    small = np.exp(-np.abs(x))  # in [0, 1]
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def logit_of(probability: ArrayLike) -> NDArray[np.float64]:
    """The inverse of :func:`sigmoid`, any shape; -inf at probability 0 and +inf at 1."""
    p = np.asarray(probability, np.float64)
    with np.errstate(divide="ignore"):
        return np.log(p) - np.log1p(-p)
