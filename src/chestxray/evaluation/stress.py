"""Scores the same radiographs corrupted, and as other files, to see what an answer depends on.

Two questions. *Corruptions*: how do AUROC, sensitivity, specificity and the input check hold up
when pictures get worse (``corruptions``)? *Same radiograph*: how far does a probability move when
only the size, the format or the JPEG quality of the file changes?

Each file is decoded once, everything is made of it and predicted in one worker, and of a prediction
only the probability and the input check's verdict are kept. What is random is drawn from (SHA-256
of the file, corruption, severity), so neither the order nor the number of threads matters.

Does not: choose thresholds, or write files (``evaluate``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from typing import Any, cast

import numpy as np
from PIL import Image

from chestxray import imaging
from chestxray.dataset import Sample
from chestxray.errors import ChestXrayError, EmptyDatasetError
from chestxray.evaluation.corruptions import (
    CLINIC_SEVERITIES,
    CORRUPTIONS,
    NOT_FROM_A_CLINIC,
    SEVERITIES,
    Pixels,
    corrupted,
)
from chestxray.evaluation.metrics import (
    Bools,
    Figure,
    Floats,
    auroc,
    figure_of,
    sensitivity,
    specificity,
    subject_draws,
)
from chestxray.evaluation.radiographs import read_radiograph
from chestxray.imaging import Radiograph, stretch
from chestxray.inference import Prediction, Predictor

SAME_RADIOGRAPH_MAX_SAMPLES = 200
SAME_RADIOGRAPH_SIDE_PX = 1024
"""What is written as another file is first shrunk to this, so that twice its size still fits into
memory. The answer it is compared with is the one for the file as it is."""

N_REPLICATES = 500

_CHUNK = 16  # pictures in memory per worker
_CONDITIONS = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
_FIGURES = ("auroc", "sensitivity", "specificity")


@dataclass(frozen=True, slots=True)
class _Answers:
    """What is kept of one radiograph: index 0 is the clean one, then as in ``_CONDITIONS``.

    ``moved`` is how far the probability moved for each of ``_VARIANTS``, of the samples chosen.
    """

    sample: Sample
    probability: Floats
    accepted: Bools
    moved: Floats | None


def n_predictions(samples: Sequence[Sample]) -> int:
    """What ``stress`` counts up to."""
    chosen = _chosen(samples)
    return sum(_n_predictions(sample, chosen) for sample in samples)


def stress(
    predictor: Predictor,
    samples: Sequence[Sample],
    *,
    threads: int,
    on_scored: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Score ``samples`` clean, corrupted and as other files; JSON-ready.

    Labels are those of the bundle's default operating point. ``flipped`` is the share of labels
    that differ from the clean one's, ``accepted`` the share that the input check accepts,
    ``misread`` the share that is accepted and flipped; a ``…_change`` is a figure minus the clean
    one. ``clinic`` has the worst changes over severities 1 and 2, and where they occur.

    ``on_scored`` is told how many of ``n_predictions`` are done; those of a file that cannot be
    read are done when that is known.

    Raises:
        EmptyDatasetError: no file of one of the truths could be read.
    """
    chosen = _chosen(samples)
    answers: list[_Answers] = []
    n_done = 0
    with ThreadPoolExecutor(threads) as pool:
        answered = pool.map(lambda s: _answer(predictor, s, s.path in chosen), samples)
        for sample, answer in zip(samples, answered, strict=True):
            if answer is not None:
                answers.append(answer)
            n_done += _n_predictions(sample, chosen)
            on_scored(n_done)
    name, threshold = predictor.operating_point()
    return {
        "n": len(answers),
        "n_subjects": len({answer.sample.subject for answer in answers}),
        "n_unreadable": len(samples) - len(answers),
        "operating_point": name,
        "threshold": threshold,
        "bundle_sha256": predictor.bundle_sha256,
        **_under_corruption(answers, threshold),
        "same_radiograph": _as_other_files(answers),
    }


def _chosen(samples: Sequence[Sample]) -> set[str]:
    """The paths of the samples that are also written as other files: evenly over all of them."""
    paths = sorted(sample.path for sample in samples)
    n = min(len(paths), SAME_RADIOGRAPH_MAX_SAMPLES)
    return {paths[i * len(paths) // n] for i in range(n)}


def _n_predictions(sample: Sample, chosen: set[str]) -> int:
    return 1 + len(_CONDITIONS) + (1 + len(_VARIANTS) if sample.path in chosen else 0)


def _answer(predictor: Predictor, sample: Sample, chosen: bool) -> _Answers | None:
    """None where the file cannot be read."""
    try:
        radiograph = read_radiograph(sample.file, predictor.manifest)
    except ChestXrayError:
        return None
    shrink_to_px = predictor.manifest.preprocessing.shrink_to_px
    pictures = (
        replace(radiograph, pixels=pixels)
        for pixels in _corrupted(shrunk(radiograph.pixels, shrink_to_px), sample)
    )
    probability, accepted = _predicted(predictor, pictures)
    moved = None
    if chosen:
        as_it_is, *others = _predicted(predictor, _same_radiograph(radiograph, shrink_to_px))[0]
        moved = np.abs(np.array(others) - as_it_is)
    return _Answers(sample, probability, accepted, moved)


def _predicted(predictor: Predictor, radiographs: Iterator[Radiograph]) -> tuple[Floats, Bools]:
    predictions: list[Prediction] = []
    while chunk := list(islice(radiographs, _CHUNK)):
        predictions += predictor.predict(chunk)
    return (
        np.array([prediction.probability for prediction in predictions]),
        np.array([prediction.input_check.accepted for prediction in predictions]),
    )


def _corrupted(clean: Pixels, sample: Sample) -> Iterator[Pixels]:
    """The clean pixels, then one picture for each of ``_CONDITIONS``."""
    yield clean
    for name, severity in _CONDITIONS:
        yield corrupted(clean, sample.sha256, name, severity)


def shrunk(pixels: Pixels, side_px: int) -> Pixels:
    """Not larger than ``side_px`` on the longer side; the ratio of the sides stays.

    Saves time: pictures are corrupted at a bundle's ``shrink_to_px``. On 40 of the full-size
    originals an input of 224 px then differs by 0.1 levels of grey of 255 on average.
    """
    return _scaled(pixels, min(1.0, side_px / max(pixels.shape)))


def _scaled(pixels: Pixels, factor: float) -> Pixels:
    """Both sides times ``factor``, but never under the 32 px that ``imaging`` asks for."""
    if factor == 1:
        return pixels
    height_px, width_px = (max(32, round(length * factor)) for length in pixels.shape)
    return stretch(pixels, height_px, width_px)


# --- the same radiograph as other files


def _png(pixels: Pixels, bits: int = 8) -> bytes:
    stored = np.round(pixels.astype(np.float64) * (2**bits - 1)).astype(f"uint{bits}")
    return _file(stored, "PNG", compress_level=1)


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    return _file(np.round(pixels * 255).astype(np.uint8), "JPEG", quality=quality)


def _file(stored: np.ndarray[Any, Any], form: str, **options: int) -> bytes:
    stream = BytesIO()
    Image.fromarray(stored).save(stream, form, **options)
    return stream.getvalue()


_VARIANTS: dict[str, Callable[[Pixels], bytes]] = {
    "size_0.5": lambda pixels: _png(_scaled(pixels, 0.5)),
    "size_0.75": lambda pixels: _png(_scaled(pixels, 0.75)),
    "size_1.5": lambda pixels: _png(_scaled(pixels, 1.5)),
    "size_2": lambda pixels: _png(_scaled(pixels, 2)),
    "png_8_bit": _png,
    "png_16_bit": lambda pixels: _png(pixels, 16),
    "jpeg_95": lambda pixels: _jpeg(pixels, 95),
    "jpeg_85": lambda pixels: _jpeg(pixels, 85),
    "jpeg_75": lambda pixels: _jpeg(pixels, 75),
    "jpeg_60": lambda pixels: _jpeg(pixels, 60),
    "jpeg_40": lambda pixels: _jpeg(pixels, 40),
}


def _same_radiograph(radiograph: Radiograph, shrink_to_px: int) -> Iterator[Radiograph]:
    """The radiograph as it is, then one read from other bytes for each of ``_VARIANTS``."""
    yield radiograph
    pixels = shrunk(radiograph.pixels, SAME_RADIOGRAPH_SIDE_PX)
    for encode in _VARIANTS.values():
        yield imaging.read(encode(pixels), shrink_to_px=shrink_to_px)


def _as_other_files(answers: Sequence[_Answers]) -> dict[str, dict[str, Any]]:
    moved = np.array([answer.moved for answer in answers if answer.moved is not None])
    n = len(moved)
    return {
        variant: {
            "n": n,
            "p95": float(np.percentile(moved[:, column], 95)) if n else None,
            "within_0_05": float((moved[:, column] <= 0.05).mean()) if n else None,
        }
        for column, variant in enumerate(_VARIANTS)
    }


# --- figures under corruption


def _under_corruption(answers: Sequence[_Answers], threshold: float) -> dict[str, Any]:
    """``clean``, ``corruptions`` and ``clinic``."""
    truth = np.array([answer.sample.positive for answer in answers], dtype=bool)
    if not 0 < truth.sum() < len(truth):
        raise EmptyDatasetError("figures need readable radiographs of both truths")
    probability = np.array([answer.probability for answer in answers])
    accepted = np.array([answer.accepted for answer in answers])
    positive = probability >= threshold
    draws = subject_draws([answer.sample.subject for answer in answers], N_REPLICATES, seed=0)
    weights = np.stack([np.ones(len(truth)), *draws])  # as they are, then the replicates

    def figures(column: int) -> dict[str, Figure]:
        measured = {
            "auroc": auroc(truth, probability[:, column], weights),
            "sensitivity": sensitivity(truth, positive[:, column], weights),
            "specificity": specificity(truth, positive[:, column], weights),
        }
        return {name: figure_of(values[0], values[1:]) for name, values in measured.items()}

    clean = figures(0)
    corruptions: dict[str, list[dict[str, Any]]] = {name: [] for name in CORRUPTIONS}
    for column, (name, severity) in enumerate(_CONDITIONS, start=1):
        measured = figures(column)
        flipped = positive[:, column] != positive[:, 0]
        corruptions[name].append(
            {
                "severity": severity,
                "level": CORRUPTIONS[name].level_text(severity),
                **measured,
                **{f"{f}_change": _value(measured[f]) - _value(clean[f]) for f in _FIGURES},
                "flipped": float(flipped.mean()),
                "accepted": float(accepted[:, column].mean()),
                "misread": float((flipped & accepted[:, column]).mean()),
            }
        )
    return {
        "clean": {**clean, "accepted": float(accepted[:, 0].mean())},
        "corruptions": corruptions,
        "clinic": {f"worst_{f}_change": _worst_in_a_clinic(corruptions, f) for f in _FIGURES},
    }


def _value(figure: Figure) -> float:
    return cast("float", figure["value"])  # there are radiographs of both truths


def _worst_in_a_clinic(corruptions: dict[str, list[dict[str, Any]]], figure: str) -> dict[str, Any]:
    worst = min(
        (
            (at[f"{figure}_change"], name, at)
            for name, severities in corruptions.items()
            if name not in NOT_FROM_A_CLINIC
            for at in severities
            if at["severity"] in CLINIC_SEVERITIES
        ),
        key=lambda found: found[0],
    )
    change, name, at = worst
    return {"change": change, "corruption": name, **{k: at[k] for k in ("severity", "level")}}
