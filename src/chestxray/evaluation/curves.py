"""The points of ROC, precision-recall, reliability and histogram, so that a report can be redrawn.

Does not: draw them (``plots``).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from chestxray.evaluation.metrics import ECE_BINS, Bools, Floats, bin_of

MAX_POINTS = 500
HISTOGRAM_BINS = 30


def curves(truth: Bools, probability: Floats) -> dict[str, Any]:
    """JSON-ready curves of ``probability`` (N,) against ``truth`` (N,), both truths in it.

    ``roc`` is [false-positive rate, sensitivity] from (0, 0) to (1, 1); ``precision_recall`` is
    [recall, precision] from (0, 1) on; both have a point only where they turn, 500 at the most.
    """
    true_positives, false_positives = _counts_downwards(truth, probability)
    recall = true_positives / truth.sum()
    precision = true_positives[1:] / (true_positives + false_positives)[1:]
    return {
        "roc": _thinned(np.stack([false_positives / (~truth).sum(), recall], axis=1)),
        "precision_recall": _thinned(np.stack([recall, np.append(1, precision)], axis=1)),
        "reliability": reliability(truth, probability),
        "histogram": histogram(truth, probability),
    }


def reliability(truth: Bools, probability: Floats) -> list[dict[str, Any]]:
    """What was said and what was so, in each of the 15 bins that ``ece`` has."""
    in_bin = bin_of(probability)
    bins = []
    for number in range(ECE_BINS):
        here = in_bin == number
        n = int(here.sum())
        bins.append(
            {
                "low": number / ECE_BINS,
                "high": (number + 1) / ECE_BINS,
                "n": n,
                "mean_probability": float(probability[here].mean()) if n else None,
                "share_positive": float(truth[here].mean()) if n else None,
            }
        )
    return bins


def histogram(truth: Bools, probability: Floats) -> dict[str, Any]:
    """How many radiographs of each truth got a probability between two ``edges``."""
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    counts = {
        name: np.histogram(probability[chosen], edges)[0].tolist()
        for name, chosen in (("negative", ~truth), ("positive", truth))
    }
    return {"edges": edges.tolist(), **counts}


def _counts_downwards(truth: Bools, probability: Floats) -> tuple[Floats, Floats]:
    """True and false positives at every threshold, from above all probabilities downwards."""
    _, level = np.unique(-probability, return_inverse=True)
    positives, negatives = (np.cumsum(np.bincount(level, of)) for of in (truth, ~truth))
    return np.append(0, positives), np.append(0, negatives)


def _thinned(points: Floats) -> list[list[float]]:
    """Without the points that lie on the line between their neighbours, and 500 at the most."""
    step = np.diff(points, axis=0)
    before, after = step[:-1], step[1:]
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    corners = points[np.concatenate([[True], np.abs(turn) > 1e-15, [True]])]
    if len(corners) > MAX_POINTS:
        kept: NDArray[np.int_] = np.linspace(0, len(corners) - 1, MAX_POINTS).round().astype(int)
        corners = corners[kept]
    listed: list[list[float]] = corners.tolist()
    return listed
