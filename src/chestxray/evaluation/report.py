"""Writes ``report.html``: everything ``evaluate`` found, to read, print and send, in one file.

Plots, pictures and styles are inside, so it opens offline and asks no other host for anything. It
holds radiographs: whoever may not see those may not see it.

Does not: compute a figure (``evaluate``) or draw a curve (``plots``); it lays out what they gave.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from chestxray import __version__
from chestxray.dataset import Sample
from chestxray.evaluation import plots
from chestxray.evaluation.evaluate import Scored
from chestxray.evaluation.metrics import FIGURES, Figure
from chestxray.evaluation.radiographs import read_radiograph
from chestxray.inference import Manifest, Prediction, render_heatmap, render_preview

MAX_ERRORS = 12
NOT_HAD = "–"
HAVE_TABLES = {"group", "view"}
"""Columns that have tables of their own."""


def write_html(
    report: dict[str, Any],
    scored: Sequence[Scored],
    manifest: Manifest,
    file: Path,
    *,
    stress: dict[str, Any] | None = None,
    now: datetime | None = None,
) -> None:
    """Write the page of ``report`` and, if there is one, of ``stress``.

    ``report`` is that of ``evaluate.report_of`` with ``evidence``, ``given_away``, ``shortcuts``,
    and ``comparison`` if two bundles were compared; ``scored`` is what it was made of, ``manifest``
    of the bundle. The files of the worst errors are read again.
    """
    html = _template().render(
        report=report,
        comparison=report.get("comparison"),
        stress=stress,
        manifest=manifest,
        version=__version__,
        date=(now or datetime.now(UTC)).strftime("%d %B %Y"),
        figures=FIGURES,
        columns={
            column: values
            for column, values in report["columns"].items()
            if len(values) > 1 and column not in HAVE_TABLES
        },
        plots=_drawn(report, stress),
        n_errors=len(_errors(scored)),
        errors=[_shown(*error, manifest) for error in _errors(scored)[:MAX_ERRORS]],
    )
    file.write_text(html, encoding="utf-8", errors="backslashreplace")


def _template() -> Any:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # file names and labels.csv are anybody's
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "interval": _interval,
        "signed": _signed,
        "with_sign": _with_sign,
        "share": _share,
        "words": lambda name: name.replace("_", " "),
    }
    return environment.get_template("report.html.jinja")


def _drawn(report: Mapping[str, Any], stress: Mapping[str, Any] | None) -> dict[str, str]:
    svgs = {
        "roc": plots.roc(report),
        "precision_recall": plots.precision_recall(report),
        "reliability": plots.reliability(report),
        "histograms": plots.histograms(report),
        "decision_curve": plots.decision_curve(report),
    }
    if stress is not None:
        svgs["stress"] = plots.stress_curves(stress)
    # As pictures and not as elements: matplotlib gives the same ids in each.
    return {name: _data_uri("image/svg+xml", svg.encode()) for name, svg in svgs.items()}


def _errors(scored: Sequence[Scored]) -> list[tuple[Sample, Prediction]]:
    """The wrong labels, the surest first."""
    wrong = [
        (s.sample, s.prediction)
        for s in scored
        if s.prediction is not None and s.prediction.positive != s.sample.positive
    ]
    return sorted(wrong, key=lambda error: (-_distance(*error), error[0].path))


def _distance(sample: Sample, prediction: Prediction) -> float:
    return abs(prediction.probability - sample.positive)


def _shown(sample: Sample, prediction: Prediction, manifest: Manifest) -> dict[str, Any]:
    pixels = read_radiograph(sample.file, manifest).pixels
    seen = 1 - pixels if prediction.inverted else pixels
    preview = render_preview(seen, manifest.preprocessing.side_px)
    heatmap = render_heatmap(prediction.evidence, manifest.evidence.scale)
    return {
        "sample": sample,
        "prediction": prediction,
        "preview": _data_uri("image/png", preview),
        "heatmap": _data_uri("image/png", heatmap),
    }


def _data_uri(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _interval(figure: Figure) -> str:
    """0.912 (0.880–0.941), which may wrap only before the interval."""
    if figure["value"] is None:
        return NOT_HAD
    value, low, high = (
        f"{figure[end]:.3f}".replace("-", "−") for end in ("value", "ci_low", "ci_high")
    )
    return Markup('{} <span class="ci">({}–{})</span>').format(value, low, high)


def _signed(figure: Figure) -> str:
    """+0.012 (−0.004 to +0.030), which may wrap only before the interval."""
    if figure["value"] is None:
        return NOT_HAD
    value, low, high = (
        _with_sign(n) for n in (figure["value"], figure["ci_low"], figure["ci_high"])
    )
    return Markup('{} <span class="ci">({} to {})</span>').format(value, low, high)


def _with_sign(number: float | None) -> str:
    rounded = round(number or 0, 3)
    return f"{rounded:+.3f}".replace("-", "−") if rounded else "0.000"


def _share(value: float | None) -> str:
    return NOT_HAD if value is None else f"{value:.1%}"
