"""What 100 radiographs of a place do for the probabilities there; for the model card.

    .venv/bin/python benchmarks/recalibration.py --out docs/reports/recalibration.json \\
        --place NAME=DIR[,DIR …] … [--heldout NAME=SOURCE[,SOURCE …] … --data DIR …]

A place is one or several data sets, or, with ``--heldout``, sources of the training data, of which
only subjects count that the bundle was not trained on. Again and again some subjects, with about
100 radiographs, play those that a site labels for ``chestxray calibrate``; the rest judge.

Does not: refit the network, or say from how many radiographs on it pays (``calibrate`` does).
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chestxray.dataset import Sample, of_sources, read_dataset
from chestxray.evaluation.calibration import recalibration
from chestxray.evaluation.evaluate import answered_of, score_samples
from chestxray.evaluation.heldout import heldout_samples
from chestxray.evaluation.metrics import ece
from chestxray.inference import BUNDLED, Predictor
from chestxray.inference.bundle import Calibration
from chestxray.inference.probability import calibrated_logit, sigmoid
from chestxray.learning.updating import update_calibration

N_LABELLED = 100
N_DRAWS = 200

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def main() -> None:
    asked = argparse.ArgumentParser(description="what 100 radiographs of a place do")
    asked.add_argument("--place", action="append", default=[], help="NAME=DIR[,DIR …]")
    asked.add_argument("--heldout", action="append", default=[], help="NAME=SOURCE[,SOURCE …]")
    asked.add_argument("--data", type=Path, action="append", default=[], help="training data")
    asked.add_argument("--out", type=Path, required=True, help="JSON file to write")
    asked.add_argument("--bundle", type=Path, default=BUNDLED, help="unset, the shipped one")
    given = asked.parse_args()

    predictor = Predictor.load(given.bundle)
    labels = predictor.manifest.finding.labels
    places = {}
    for place in given.place:
        name, _, folders = place.partition("=")
        places[name] = read_dataset([Path(folder) for folder in folders.split(",")], labels)
    if given.heldout:
        held = heldout_samples(read_dataset(given.data, labels), [predictor.manifest])
        for place in given.heldout:
            name, _, sources = place.partition("=")
            places[name] = of_sources(held, sources.split(","))
    facts: dict[str, Any] = {
        "bundle_sha256": predictor.bundle_sha256,
        "command": f".venv/bin/python {shlex.join(sys.argv)}",
        "n_labelled": N_LABELLED,
        "n_draws": N_DRAWS,
        "places": {name: _judged(predictor, samples) for name, samples in places.items()},
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    for name, place in facts["places"].items():
        print(name, json.dumps(place))


def _judged(predictor: Predictor, samples: Sequence[Sample]) -> dict[str, Any]:
    threads = len(os.sched_getaffinity(0))
    answered = answered_of(score_samples(predictor, samples, threads=threads))
    logits = np.array([prediction.logit for prediction in answered.predictions])
    truth = answered.truth
    shipped = predictor.manifest.calibration
    return {
        **answered.counts,
        "prevalence": float(truth.mean()),
        "before": figures(shipped, logits, truth),
        "after": after(shipped, logits, truth, answered.subjects),
    }


def figures(calibration: Calibration, logits: Floats, truth: Bools) -> dict[str, float]:
    """Slope and intercept (ideally 1 and 0), and the expected calibration error."""
    said = calibrated_logit(logits, calibration)
    intercept, slope = recalibration(truth, said, np.ones(len(truth)))
    probability = sigmoid(said)
    return {
        "slope": float(slope),
        "intercept": float(intercept),
        "ece": float(ece(truth, probability)),
    }


def after(
    shipped: Calibration, logits: Floats, truth: Bools, subjects: Sequence[str]
) -> dict[str, Any]:
    """Medians and quartiles over draws of what the remaining subjects say."""
    _, subject = np.unique(subjects, return_inverse=True)
    n_all = int(subject.max()) + 1
    n_subjects = round(N_LABELLED * n_all / len(logits))
    judged = []
    for draw in range(N_DRAWS):
        random = np.random.default_rng((0, draw))
        labelled = np.isin(subject, random.permutation(n_all)[:n_subjects])
        if any(len(np.unique(truth[side])) < 2 for side in (labelled, ~labelled)):
            continue
        updated = update_calibration(shipped, logits[labelled], truth[labelled], "a draw")
        judged.append(figures(updated, logits[~labelled], truth[~labelled]))
    quartiles = {
        name: dict(
            zip(
                ("lower", "median", "upper"),
                np.nanquantile([of[name] for of in judged], (0.25, 0.5, 0.75)).tolist(),
                strict=True,
            )
        )
        for name in ("slope", "intercept", "ece")
    }
    return {"n_draws": len(judged), "n_judged": len(logits) - N_LABELLED, **quartiles}


if __name__ == "__main__":
    main()
