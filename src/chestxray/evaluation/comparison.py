"""Compares two bundles on the same radiographs, each at its own default operating point.

The interval of a difference is paired: both bundles see the same draws of subjects, so what makes a
radiograph hard for both cancels out.

Does not: test a hypothesis; an interval that leaves out 0 is what there is to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from chestxray.errors import ConfigError
from chestxray.evaluation.evaluate import Scored, answered_of
from chestxray.evaluation.metrics import Resampled
from chestxray.inference import Finding, Manifest, Predictor


def check_finding(manifest: Manifest, finding: Finding) -> None:
    """Raises ConfigError where a bundle is of another finding: what it says cannot be compared."""
    if not manifest.finding.is_that_of(finding):
        raise ConfigError(
            f"the bundle {manifest.name} is of another finding: "
            f"{_described(manifest.finding)}, not {_described(finding)}"
        )


def _described(finding: Finding) -> str:
    code = finding.code
    return f"{finding.negative}/{finding.positive} ({code.scheme} {code.value})"


def comparison_of(
    predictor: Predictor,
    scored: Sequence[Scored],
    other: Predictor,
    scored_by_other: Sequence[Scored],
) -> dict[str, Any]:
    """The figures of ``other``, and those of ``predictor`` minus them; JSON-ready.

    Both are of one finding, and have scored the same samples in the same order.
    """
    _, own_threshold = predictor.operating_point()
    name, threshold = other.operating_point()
    ours = answered_of(scored).resampled(own_threshold)
    theirs = answered_of(scored_by_other).resampled(threshold)
    differences = {
        figure: Resampled(own.value - theirs[figure].value, own.draws - theirs[figure].draws)
        for figure, own in ours.items()
    }
    return {
        "name": other.manifest.name,
        "bundle_sha256": other.bundle_sha256,
        "operating_point": name,
        "threshold": threshold,
        "figures": {figure: of.figure() for figure, of in theirs.items()},
        "differences": {figure: of.figure() for figure, of in differences.items()},
    }
