"""Scores a folder with truths through a bundle and writes what came out.

Into the output folder go ``report.json`` (figures) and ``predictions.csv`` (a row per radiograph).
Every readable radiograph is scored, also one that would be refused for what the input check says or
for the patient's age. Files that cannot be read, among them those of a modality, body part or view
that the bundle does not know, are counted and named in the report.

Does not: look into the network; it asks the predictor, as every user of the bundle does. Nor draw
(``report``): export calls this, and a site that calibrates has no plotting library.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from chestxray import imaging
from chestxray.assessment import Assessment, Assessor, Policy, assess_all
from chestxray.dataset import Sample
from chestxray.errors import ChestXrayError, ConfigError, EmptyDatasetError
from chestxray.evaluation.breakdown import (
    Answered,
    by_certainty,
    by_column,
    by_group,
    by_source,
    by_view,
    counted_once,
)
from chestxray.evaluation.calibration import calibration_of
from chestxray.evaluation.curves import curves
from chestxray.evaluation.decision_curve import decision_curve
from chestxray.evaluation.metrics import (
    FIGURES,
    Bools,
    Resampled,
    negative_predictive_value,
    positive_predictive_value,
)
from chestxray.evaluation.radiographs import CHOICES
from chestxray.inference import Prediction, Predictor

COLUMNS = ("path", "subject", "group", "truth", "probability", "label", "accepted")


@dataclass(frozen=True, slots=True)
class Scored:
    """A sample with its prediction, or with the error that reading it gave.

    ``outside_population`` says that the patient is of an age that the bundle does not know;
    ``size_px`` is the width and height of the upright file, where it could be decoded. The
    radiograph is left out: memory would not hold those of a data set.
    """

    sample: Sample
    prediction: Prediction | None
    error: ChestXrayError | None = None
    outside_population: bool = False
    size_px: tuple[int, int] | None = None


def score_samples(
    predictor: Predictor,
    samples: Sequence[Sample],
    *,
    threads: int,
    on_scored: Callable[[int], None] = lambda _: None,
) -> list[Scored]:
    """Read and predict every sample, ``threads`` at a time, telling ``on_scored`` how many are."""
    manifest = predictor.manifest
    assessor = Assessor(manifest.name, predictor, Policy.of(manifest, CHOICES))
    files = (partial(imaging.load, sample.file) for sample in samples)
    scored = []
    for sample, (assessment, outside, size_px) in zip(
        samples, assess_all(files, [assessor], _kept, threads=threads), strict=True
    ):
        scored.append(Scored(sample, assessment.prediction, assessment.error, outside, size_px))
        on_scored(len(scored))
    return scored


def _kept(
    _: object, assessments: list[Assessment]
) -> tuple[Assessment, bool, tuple[int, int] | None]:
    """The assessment without pixels, whether the bundle does not know the age, and the size."""
    (assessment,) = assessments
    radiograph = assessment.radiograph
    age_years = radiograph.acquisition.age_years if radiograph is not None else None
    knows = assessment.assessor.policy.knows
    outside = age_years is not None and not knows.knows_age(age_years)
    size_px = None if radiograph is None else (radiograph.width_px, radiograph.height_px)
    return assessment.without_pixels(), outside, size_px


def answered_of(scored: Iterable[Scored]) -> Answered:
    """Those that could be read."""
    read = [(s.sample, s.prediction) for s in scored if s.prediction is not None]
    return Answered([sample for sample, _ in read], [prediction for _, prediction in read])


def report_of(
    predictor: Predictor,
    scored: Sequence[Scored],
    dataset: str,
    split: str,
    *,
    prevalence: float | None = None,
) -> dict[str, Any]:
    """All figures of a scored data set, as ``report.json`` has them.

    Predictive values are given at the folder's prevalence of the finding, at the calibration's, and
    at ``prevalence``, if asked.

    Raises:
        EmptyDatasetError: no file of one of the truths could be read.
        ConfigError: ``prevalence`` is no share between 0 and 1.
    """
    if prevalence is not None:
        check_prevalence(prevalence)
    answered = answered_of(scored)
    truth, probability = answered.truth, answered.probability
    if not 0 < truth.sum() < len(truth):
        raise EmptyDatasetError("figures need readable radiographs of both truths")
    prevalences = {
        "folder": float(truth.mean()),
        "calibration": predictor.manifest.calibration.prevalence,
        "asked": prevalence,
    }
    points: dict[str, dict[str, Any]] = {}
    for name, point in predictor.manifest.operating_points.items():
        at_point = answered.resampled(point.threshold)
        points[name] = {
            "threshold": point.threshold,
            **{figure: at_point[figure].figure() for figure in FIGURES},
            "confusion": _confusion(truth, probability >= point.threshold),
            "predictive_values": _predictive_values(at_point, prevalences),
        }
    default, threshold = predictor.operating_point()
    duplicated = counted_once(answered, threshold)
    uncertain = by_certainty(answered, threshold)
    return {
        "dataset": dataset,
        "split": split,
        "labels": predictor.manifest.finding.labels._asdict(),
        **answered.counts,
        "n_negative": int((~truth).sum()),
        "n_positive": int(truth.sum()),
        "n_refused": answered.n_refused,
        "n_outside_population": sum(s.outside_population for s in scored),
        "n_uncertain": uncertain["n"],
        "n_unreadable": len(scored) - len(truth),
        "unreadable": [
            {"path": s.sample.path, "code": s.error.code} for s in scored if s.error is not None
        ],
        "n_duplicates": duplicated["n_copies"],
        "bundle_name": predictor.manifest.name,
        "bundle_sha256": predictor.bundle_sha256,
        "operating_point": default,
        "threshold": threshold,
        **{figure: points[default][figure] for figure in FIGURES},
        "operating_points": points,
        "prevalence": prevalences,
        "groups": by_group(answered, threshold),
        "views": by_view(answered, threshold),
        "sources": by_source(answered, threshold),
        "columns": by_column(answered, threshold),
        "duplicates": duplicated,
        "uncertain": uncertain,
        "calibration": calibration_of(truth, probability, answered.subjects),
        "decision_curve": decision_curve(truth, probability, answered.subjects),
        "curves": curves(truth, probability),
    }


def check_prevalence(prevalence: float) -> None:
    """Raises ConfigError."""
    if not 0 < prevalence < 1:
        raise ConfigError(f"a prevalence lies between 0 and 1, not at {prevalence:g}")


def points_of(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Threshold and seven figures of each operating point: what a manifest quotes of a report."""
    kept = ("threshold", *FIGURES)
    return {
        name: {key: point[key] for key in kept}
        for name, point in report["operating_points"].items()
    }


def _confusion(truth: Bools, positive: Bools) -> dict[str, int]:
    return {
        "tp": int((truth & positive).sum()),
        "fp": int((~truth & positive).sum()),
        "tn": int((~truth & ~positive).sum()),
        "fn": int((truth & ~positive).sum()),
    }


def _predictive_values(
    at_point: dict[str, Resampled], prevalences: dict[str, float | None]
) -> list[dict[str, Any]]:
    sensitivity, specificity = at_point["sensitivity"], at_point["specificity"]
    rows: list[dict[str, Any]] = []
    for whose, prevalence in prevalences.items():
        if prevalence is None:
            continue
        row: dict[str, Any] = {"prevalence": prevalence, "whose": whose}
        for name, value_of in (
            ("ppv", positive_predictive_value),
            ("npv", negative_predictive_value),
        ):
            row[name] = Resampled(
                value_of(sensitivity.value, specificity.value, prevalence),
                value_of(sensitivity.draws, specificity.draws, prevalence),
            ).figure()
        rows.append(row)
    return rows


def write_report(report: dict[str, Any], scored: Iterable[Scored], out: Path) -> None:
    """Write ``report.json`` and ``predictions.csv`` into ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(report, out / "report.json")
    table = out / "predictions.csv"
    # A name that is no UTF-8 keeps its bytes as ``\\udc80`` …
    with table.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
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


def write_json(facts: dict[str, Any], file: Path) -> None:
    """Write what anybody's JSON parser reads: no NaN, and nothing but UTF-8."""
    text = json.dumps(facts, indent=1, allow_nan=False)
    file.write_text(text + "\n", encoding="utf-8")
