"""Cross-validation by subject: the same recipe on every fold, judged through the bundle.

Does not: make a bundle to ship; it says how far a figure depends on who was held out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from chestxray.dataset import Sample, split_folds
from chestxray.learning.config import TrainConfig
from chestxray.learning.export import export
from chestxray.learning.training import Progress, no_progress, train

FIGURES = ("auroc", "accuracy", "sensitivity", "specificity", "precision", "brier", "ece")


def cross_validate(
    config: TrainConfig,
    samples: list[Sample],
    out: Path,
    n_folds: int,
    *,
    init: Path | None = None,
    progress: Progress = no_progress,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train and export ``n_folds`` times into ``out/fold-K``; resumes where it was killed.

    Writes and returns ``cross_validation.json``: the figures of each fold at the default operating
    point, with their mean and standard deviation over the folds.
    """
    folds = []
    for number, split in enumerate(split_folds(samples, n_folds, config.seed), start=1):
        say(f"fold {number} of {n_folds}")
        folder = out / f"fold-{number}"
        run = train(config, samples, folder, init=init, split=split, progress=progress, say=say)
        manifest = export(run, folder / "bundle", progress=progress)
        entry = manifest.metrics[0]
        point = entry["operating_points"][manifest.default_operating_point]
        folds.append({"fold": number, "n": entry["n"], "n_subjects": entry["n_subjects"]} | point)
    # A fold in which a figure has no denominator says nothing of it.
    of_folds = {
        name: [fold[name]["value"] for fold in folds if fold[name]["value"] is not None]
        for name in FIGURES
    }
    summary = {
        name: {
            "mean": float(np.mean(values)),
            "std": float(np.std(values, ddof=1)),
        }
        for name, values in of_folds.items()
    }
    result = {"config": config.name, "n_folds": n_folds, "summary": summary, "folds": folds}
    file = out / "cross_validation.json"
    file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result
