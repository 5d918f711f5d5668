"""Samples and predictions made up by hand, where a figure is to be followed by eye."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chestxray.dataset import Sample
from chestxray.evaluation.breakdown import Answered
from chestxray.inference import InputCheckResult, Prediction
from factories.datasets import LABELS


def sample(
    path: str,
    *,
    subject: str | None = None,
    group: str | None = None,
    content: str | None = None,
    view: str | None = None,
    source: str = "here",
    more: Mapping[str, str] | None = None,
) -> Sample:
    """A sample of no file; its truth is its folder's, its subject and content are its own.

    ``more`` are further groups of it.
    """
    truth = path.split("/", maxsplit=1)[0]
    positive = truth == LABELS.positive
    known = {"source": source, "group": group, "view": view, **(more or {})}
    return Sample(
        path,
        Path(path),
        truth,
        positive,
        subject or path,
        content or path,
        source,
        view,
        groups={column: value for column, value in known.items() if value is not None},
    )


def prediction(
    probability: float,
    *,
    threshold: float = 0.5,
    uncertain: bool = False,
    inverted: bool = False,
    accepted: bool = True,
    logit: float = 0.0,
    evidence: NDArray[np.float32] | None = None,
) -> Prediction:
    return Prediction(
        label=LABELS[probability >= threshold],
        positive=probability >= threshold,
        probability=probability,
        threshold=threshold,
        operating_point="balanced",
        uncertain=uncertain,
        inverted=inverted,
        input_check=InputCheckResult(accepted, 0.9 if accepted else 0.1),
        logit=logit,
        evidence=np.zeros((8, 8), np.float32) if evidence is None else evidence,
    )


def answered(pairs: Iterable[tuple[Sample, Prediction]]) -> Answered:
    samples, predictions = zip(*pairs, strict=True)
    return Answered(samples, predictions)
