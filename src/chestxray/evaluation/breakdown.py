"""The same figures on parts of a data set: by group, view, source and every other column, with each
duplicate counted once, and by certainty.

A pooled figure can hide a part on which the model fails, and flatter: where one view has most of
the disease, telling the views apart looks like telling the disease.

Does not: score anything, or choose a threshold; a part too small to judge has a wide interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from chestxray.dataset import Sample, duplicates
from chestxray.evaluation.calibration import calibration_of
from chestxray.evaluation.metrics import (
    NO_FIGURE,
    Bools,
    Figure,
    Floats,
    Resampled,
    figures,
    resampled,
)
from chestxray.inference import Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """Radiographs that could be read, (N,) each, with their predictions."""

    samples: Sequence[Sample]
    predictions: Sequence[Prediction]

    @property
    def truth(self) -> Bools:
        return np.array([sample.positive for sample in self.samples], dtype=bool)

    @property
    def probability(self) -> Floats:
        return np.array([prediction.probability for prediction in self.predictions])

    @property
    def subjects(self) -> list[str]:
        return [sample.subject for sample in self.samples]

    @property
    def counts(self) -> dict[str, int]:
        return {"n": len(self.samples), "n_subjects": len(set(self.subjects))}

    @property
    def n_refused(self) -> int:
        return sum(not prediction.input_check.accepted for prediction in self.predictions)

    def part(self, chosen: Sequence[bool]) -> Answered:
        """Those of which ``chosen`` (N,) is true."""
        kept = [i for i, of_it in enumerate(chosen) if of_it]
        return Answered([self.samples[i] for i in kept], [self.predictions[i] for i in kept])

    def resampled(self, threshold: float) -> dict[str, Resampled]:
        return resampled(self.truth, self.probability, threshold, self.subjects)

    def figures(self, threshold: float) -> dict[str, Figure]:
        """The seven figures."""
        return figures(self.truth, self.probability, threshold, self.subjects)


def by_group(answered: Answered, threshold: float) -> dict[str, dict[str, Any]]:
    """How many of each named group got the right label.

    All of a published group have one truth, so the right share is their sensitivity or specificity.
    """
    kinds = sorted({(s.group, s.truth) for s in answered.samples if s.group is not None})
    named: dict[str, dict[str, Any]] = {}
    for group, truth in kinds:
        part = answered.part([(s.group, s.truth) == (group, truth) for s in answered.samples])
        # A file put into the other folder than its name says makes a group of its own.
        name = group if group not in named else f"{group} in {truth}"
        named[name] = {
            "truth": truth,
            **part.counts,
            **_right_share(part, threshold),
            "n_refused": part.n_refused,
        }
    return named


def _right_share(part: Answered, threshold: float) -> dict[str, Figure]:
    """Of radiographs of one truth."""
    name = "sensitivity" if part.samples[0].positive else "specificity"
    return {name: part.resampled(threshold)[name].figure()}


def by_view(answered: Answered, threshold: float) -> dict[str, dict[str, Any]]:
    """The seven figures of each view; where a truth is missing, those that need it are None."""
    views = sorted({s.view for s in answered.samples if s.view is not None})
    return {
        view: _judged(answered.part([s.view == view for s in answered.samples]), threshold)
        for view in views
    }


def by_column(answered: Answered, threshold: float) -> dict[str, dict[str, dict[str, Any]]]:
    """The seven figures of each value of each column of ``Sample.groups``, and of its views.

    Radiographs of which a column says nothing are in none of its values.
    """
    columns = dict.fromkeys(column for s in answered.samples for column in s.groups)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for column in columns:
        values = sorted({s.groups[column] for s in answered.samples if column in s.groups})
        found[column] = {}
        for value in values:
            part = answered.part([s.groups.get(column) == value for s in answered.samples])
            within = {} if column == "view" else {"views": by_view(part, threshold)}
            found[column][value] = {**_judged(part, threshold), **within}
    return found


def by_source(answered: Answered, threshold: float) -> dict[str, dict[str, Any]]:
    """The seven figures of each source, its calibration, and its errors by certainty."""
    found = {}
    for source in sorted({s.source for s in answered.samples}):
        part = answered.part([s.source == source for s in answered.samples])
        found[source] = {
            **_judged(part, threshold),
            "calibration": calibration_of(part.truth, part.probability, part.subjects),
            "uncertain": by_certainty(part, threshold),
        }
    return found


def _judged(part: Answered, threshold: float) -> dict[str, Any]:
    n_positive = int(part.truth.sum())
    return {
        **part.counts,
        "n_negative": part.counts["n"] - n_positive,
        "n_positive": n_positive,
        **part.figures(threshold),
    }


def counted_once(answered: Answered, threshold: float) -> dict[str, Any]:
    """The seven figures where only the first, by path, of each set of byte-equal files counts."""
    copies = {
        copy.path
        for same in duplicates(sorted(answered.samples, key=lambda s: s.path))
        for copy in same[1:]
    }
    part = answered.part([s.path not in copies for s in answered.samples])
    return {
        "n_copies": len(copies),
        "counted_once": {**part.counts, **part.figures(threshold)},
    }


def by_certainty(answered: Answered, threshold: float) -> dict[str, Any]:
    """How often the label is wrong where the bundle is sure of it, and where it is not."""
    uncertain = np.array([prediction.uncertain for prediction in answered.predictions], dtype=bool)
    return {
        "n": int(uncertain.sum()),
        "coverage": float((~uncertain).mean()),
        "error_certain": _error(answered.part((~uncertain).tolist()), threshold),
        "error_uncertain": _error(answered.part(uncertain.tolist()), threshold),
    }


def _error(part: Answered, threshold: float) -> Figure:
    if not part.samples:
        return NO_FIGURE
    accuracy = part.resampled(threshold)["accuracy"]
    return Resampled(1 - accuracy.value, 1 - accuracy.draws).figure()
