"""The shortcut floor: how well the truth of a data set is told without looking at lungs.

Two logistic regressions, one on seven grey-level statistics of the whole picture and one on the
size of the file, are fitted and tested within the data set, cross-validated by subject. A network's
AUROC there means as much as it lies above theirs.

Does not: ask a bundle; a high floor is a fault of the data, whatever is scored on it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from chestxray.dataset import Sample
from chestxray.errors import ChestXrayError
from chestxray.evaluation.metrics import Bools, Figure, Floats, auroc, figure_of, subject_draws
from chestxray.evaluation.radiographs import read_radiograph
from chestxray.inference import Manifest

MAX_FOLDS = 5
N_REPLICATES = 500

_Indices = NDArray[np.intp]


def shortcut_floor(
    samples: Sequence[Sample], manifest: Manifest, *, threads: int
) -> dict[str, Any]:
    """``{"grey_statistics": {"auroc": Figure}, "size_bytes": {"auroc": Figure}, "n_folds": 5}``.

    Files are read as the bundle of ``manifest`` is shown them; those that cannot be are left out.
    With few subjects there are fewer folds; with fewer than two of a truth there are none, and None
    stands for both.
    """
    with ThreadPoolExecutor(threads) as pool:
        described = list(pool.map(partial(_described, manifest=manifest), samples))
    read = [
        (sample, found)
        for sample, found in zip(samples, described, strict=True)
        if found is not None
    ]
    truth = np.array([sample.positive for sample, _ in read], dtype=bool)
    subjects = [sample.subject for sample, _ in read]
    folds = _folds(truth, subjects)
    if not folds:
        return {"grey_statistics": None, "size_bytes": None, "n_folds": 0}
    table = np.array([found for _, found in read])
    draws = subject_draws(subjects, N_REPLICATES, seed=0)
    return {
        "grey_statistics": {"auroc": _floor(table[:, :-1], truth, folds, draws)},
        "size_bytes": {"auroc": _floor(table[:, -1:], truth, folds, draws)},
        "n_folds": len(folds),
    }


def _described(sample: Sample, manifest: Manifest) -> list[float] | None:
    """The seven grey-level statistics and the logarithm of the size; None where unreadable."""
    try:
        pixels = read_radiograph(sample.file, manifest).pixels
    except ChestXrayError:
        return None
    percentiles = np.percentile(pixels, [5, 25, 50, 75, 95])
    log_size = math.log(sample.file.stat().st_size)
    return [float(pixels.mean()), float(pixels.std()), *map(float, percentiles), log_size]


def _folds(truth: Bools, subjects: Sequence[str]) -> list[tuple[_Indices, _Indices]]:
    """(fitted on, tested on) by subject; none where a side would lack a truth to fit."""
    by_truth = [{s for s, t in zip(subjects, truth, strict=True) if t == x} for x in (False, True)]
    n_folds = min(MAX_FOLDS, *map(len, by_truth))
    if n_folds < 2:
        return []
    splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=0)
    folds = list(splitter.split(np.zeros(len(truth)), truth, subjects))
    return folds if all(0 < truth[fit].mean() < 1 for fit, _ in folds) else []


def _floor(
    table: Floats, truth: Bools, folds: Sequence[tuple[_Indices, _Indices]], draws: list[Floats]
) -> Figure:
    """The mean of the folds' AUROCs; a fold's scores are a model's that never saw its subjects.

    Not the AUROC of the pooled scores: a fold that happens to hold more positives leaves less for
    its model to fit, whose scores are then all lower, and pooling would push a floor without any
    signal below 0.5.
    """
    score = np.empty(len(truth))
    for fit, test in folds:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        score[test] = model.fit(table[fit], truth[fit]).decision_function(table[test])

    weights = np.stack([np.ones(len(truth)), *draws])  # as they are, then the replicates
    per_fold = [auroc(truth[test], score[test], weights[:, test]) for _, test in folds]
    # A fold, or a replicate of it, without both truths has no AUROC and is left out.
    mean = np.ma.masked_invalid(per_fold).mean(axis=0).filled(np.nan)
    return figure_of(mean[0], mean[1:])
