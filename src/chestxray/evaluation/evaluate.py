"""Scores a folder with truths through a bundle and writes what came out.

Into the output folder go ``report.json`` (figures) and ``predictions.csv`` (a row per radiograph).
Every readable radiograph is scored, also one that the input check would refuse; files that cannot
be read are counted and named in the report.

Does not: look into the network; it asks the predictor, as every user of the bundle does.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from chestxray import imaging
from chestxray.dataset import Sample, duplicates
from chestxray.errors import ChestXrayError, EmptyDatasetError
from chestxray.evaluation.metrics import Figure, figures
from chestxray.inference import Prediction, Predictor

COLUMNS = ("path", "subject", "group", "truth", "probability", "label", "accepted")


@dataclass(frozen=True, slots=True)
class Scored:
    """A sample with its prediction, or with the error that reading it gave."""

    sample: Sample
    prediction: Prediction | None
    error: ChestXrayError | None = None


def score_samples(
    predictor: Predictor,
    samples: Sequence[Sample],
    *,
    threads: int,
    on_scored: Callable[[int], None] = lambda _: None,
) -> list[Scored]:
    """Read and predict every sample, ``threads`` at a time, telling ``on_scored`` how many are."""

    def score(sample: Sample) -> Scored:
        try:
            radiograph = imaging.read_file(sample.file)
        except ChestXrayError as exc:
            return Scored(sample, None, exc)
        return Scored(sample, predictor.predict([radiograph])[0])

    scored = []
    with ThreadPoolExecutor(threads) as pool:
        for result in pool.map(score, samples):
            scored.append(result)
            on_scored(len(scored))
    return scored


def report_of(
    predictor: Predictor, scored: Sequence[Scored], dataset: str, split: str
) -> dict[str, Any]:
    """All figures of a scored data set, as ``report.json`` has them.

    Raises:
        EmptyDatasetError: no file of one of the truths could be read.
    """
    read = [(s.sample, s.prediction) for s in scored if s.prediction is not None]
    truth = np.array([sample.truth == "PNEUMONIA" for sample, _ in read], dtype=bool)
    if not 0 < truth.sum() < len(truth):
        raise EmptyDatasetError("figures need readable radiographs of both truths")
    probability = np.array([prediction.probability for _, prediction in read])
    subjects = [sample.subject for sample, _ in read]
    points: dict[str, dict[str, Any]] = {}
    for name, point in predictor.manifest.operating_points.items():
        at_point: dict[str, Figure] = figures(truth, probability, point.threshold, subjects)
        points[name] = {"threshold": point.threshold, **at_point}
    default = predictor.manifest.default_operating_point
    return {
        "dataset": dataset,
        "split": split,
        "n": len(read),
        "n_subjects": len(set(subjects)),
        "n_normal": int((~truth).sum()),
        "n_pneumonia": int(truth.sum()),
        "n_refused": sum(not prediction.input_check.accepted for _, prediction in read),
        "n_uncertain": sum(prediction.uncertain for _, prediction in read),
        "n_unreadable": len(scored) - len(read),
        "unreadable": [
            {"path": s.sample.path, "code": s.error.code} for s in scored if s.error is not None
        ],
        "n_duplicates": sum(len(c) - 1 for c in duplicates(sample for sample, _ in read)),
        "bundle_sha256": predictor.bundle_sha256,
        "operating_point": default,
        **points[default],
        "operating_points": points,
    }


def write_report(report: dict[str, Any], scored: Iterable[Scored], out: Path) -> None:
    """Write ``report.json`` and ``predictions.csv`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report, indent=1, allow_nan=False)
    (out / "report.json").write_text(text + "\n", encoding="utf-8")
    with (out / "predictions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for s in scored:
            if s.prediction is not None:
                rows.writerow(
                    (
                        s.sample.path,
                        s.sample.subject,
                        s.sample.group or "",
                        s.sample.truth,
                        f"{s.prediction.probability:.6f}",
                        s.prediction.label,
                        str(s.prediction.input_check.accepted).lower(),
                    )
                )
