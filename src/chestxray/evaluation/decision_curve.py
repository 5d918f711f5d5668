"""Whether acting on the answers does more good than acting on everybody, or on nobody.

Who acts from a probability t on holds one finding missed to be as bad as (1 − t) / t needless acts.
Net benefit counts both in findings acted upon (Vickers and Elkin 2006).

Does not: know what an act costs; a reader looks at the thresholds that make sense where they work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from chestxray.evaluation.metrics import Bools, Floats, Measured, resample_all

THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 20))


def decision_curve(
    truth: Bools, probability: Floats, subjects: Sequence[str]
) -> list[dict[str, Any]]:
    """Net benefit of ``probability`` (N,) at thresholds from 0.05 to 0.95, at this prevalence.

    ``treat_none`` is 0 by definition, and ``gain`` is the net benefit less that of the better of
    treating all and none, paired.
    """
    acted = probability[:, np.newaxis] >= np.array(THRESHOLDS)

    def measure(weights: Floats) -> dict[str, Measured]:
        answers = net_benefit(truth, acted, weights)
        treat_all = net_benefit(truth, np.ones_like(acted), weights)
        found = {
            "net_benefit": answers,
            "treat_all": treat_all,
            "gain": answers - np.clip(treat_all, 0, None),
        }
        return {
            f"{name} {threshold}": of[..., column]
            for name, of in found.items()
            for column, threshold in enumerate(THRESHOLDS)
        }

    found = resample_all(measure, subjects)
    return [
        {
            "threshold": threshold,
            "treat_none": 0.0,
            **{
                name: found[f"{name} {threshold}"].figure()
                for name in ("net_benefit", "treat_all", "gain")
            },
        }
        for threshold in THRESHOLDS
    ]


def net_benefit(truth: Bools, acted: Bools, weights: Floats) -> Floats:
    """(true positives − false positives × t / (1 − t)) / n, at each threshold t of ``THRESHOLDS``.

    ``acted`` (N, T) says who is acted on at each; the answer is (T,), or (R, T) for weights (R, N).
    """
    threshold = np.array(THRESHOLDS)
    harm = threshold / (1 - threshold)
    positive = truth[:, np.newaxis]
    benefit = weights @ (acted & positive) - harm * (weights @ (acted & ~positive))
    found: Floats = benefit / weights.sum(axis=-1, keepdims=True)
    return found
