"""Draws a report's curves as SVG, from ``report.json`` and ``stress.json`` alone.

The colours are Okabe and Ito's (2008), which survive colour blindness; lines differ in dash and
marker too, so that they survive grey print.

Does not: compute a figure, touch pyplot or need a screen.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#767676"
MARKERS = "v^sDPX"
Report = Mapping[str, Any]

# Letters as paths look the same on every machine; a fixed salt gives the same file every time.
STYLE: Any = {"svg.fonttype": "path", "svg.hashsalt": "chestxray", "font.size": 10}


@rc_context(STYLE)
def roc(report: Report) -> str:
    """Sensitivity against false-positive rate, with the operating points."""
    figure, axes = _square("1 − specificity (false-positive rate)", "sensitivity")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    axes.plot(*zip(*report["curves"]["roc"], strict=True), color=BLUE, linewidth=2)
    for name, point, marker in _points(report):
        x, y = 1 - point["specificity"]["value"], point["sensitivity"]["value"]
        axes.plot(x, y, marker, color=ORANGE, markersize=9, label=name, markeredgecolor="white")
    axes.legend(frameon=False, loc="lower right")
    return _svg(figure)


@rc_context(STYLE)
def precision_recall(report: Report) -> str:
    """Precision against recall, with the operating points and the folder's prevalence."""
    figure, axes = _square("recall (sensitivity)", "precision (PPV in this folder)")
    prevalence = report["prevalence"]["folder"]
    axes.axhline(prevalence, color=GREY, linewidth=1, linestyle=":", label="prevalence")
    curve = zip(*report["curves"]["precision_recall"], strict=True)
    axes.plot(*curve, color=BLUE, linewidth=2)
    for name, point, marker in _points(report):
        x, y = point["sensitivity"]["value"], point["precision"]["value"]
        if y is not None:
            axes.plot(x, y, marker, color=ORANGE, markersize=9, label=name, markeredgecolor="white")
    axes.legend(frameon=False, loc="lower left")
    return _svg(figure)


@rc_context(STYLE)
def reliability(report: Report) -> str:
    """What was said against what was so, above the number of radiographs in each bin."""
    bins = [bin_ for bin_ in report["curves"]["reliability"] if bin_["n"]]
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    said = [bin_["mean_probability"] for bin_ in bins]
    found = [bin_["share_positive"] for bin_ in bins]
    positive = report["labels"]["positive"]
    upper.plot(said, found, color=BLUE, linewidth=1, alpha=0.4)
    upper.scatter(said, found, _areas([bin_["n"] for bin_ in bins]), BLUE, zorder=3)
    upper.set(ylabel=f"share with {positive}", xlim=(-0.02, 1.02), ylim=(-0.03, 1.03))
    bars = lower.bar(
        [bin_["low"] for bin_ in bins],
        [bin_["n"] for bin_ in bins],
        [bin_["high"] - bin_["low"] for bin_ in bins],
        align="edge",
        color=BLUE,
        edgecolor="white",
    )
    lower.bar_label(bars, fontsize=8)
    lower.margins(y=0.25)
    lower.set(xlabel=f"probability of {positive}", ylabel="n in bin")
    for axes in (upper, lower):
        _plain(axes)
    return _svg(figure)


@rc_context(STYLE)
def histograms(report: Report) -> str:
    """How the probabilities of each truth lie about the thresholds."""
    histogram = report["curves"]["histogram"]
    figure = Figure(figsize=(5.2, 5.6), layout="constrained")
    rows = figure.subplots(2, 1, sharex=True)
    labels = report["labels"]
    for axes, (truth, label), colour in zip(rows, labels.items(), (BLUE, ORANGE), strict=True):
        axes.stairs(histogram[truth], histogram["edges"], fill=True, color=colour, alpha=0.85)
        axes.set(ylabel=f"{label}, n", xlim=(0, 1))
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        _plain(axes)
        for dash, (name, point) in zip(
            ("--", "-", "-."), list(report["operating_points"].items())[:3], strict=False
        ):
            axes.axvline(
                point["threshold"], color="black", linewidth=1.2, linestyle=dash, label=name
            )
    figure.legend(
        *rows[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False
    )
    rows[-1].set_xlabel(f"probability of {labels['positive']}")
    return _svg(figure)


@rc_context(STYLE)
def decision_curve(report: Report) -> str:
    """Net benefit over the threshold, of the answers, of acting on all and of acting on none."""
    rows = report["decision_curve"]
    thresholds = [row["threshold"] for row in rows]
    prevalence = report["prevalence"]["folder"]
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axes = figure.subplots()
    low, high = ([row["net_benefit"][end] for row in rows] for end in ("ci_low", "ci_high"))
    axes.fill_between(thresholds, low, high, color=BLUE, alpha=0.2, linewidth=0)
    for key, label, colour, dash in (
        ("net_benefit", "this bundle", BLUE, "-"),
        ("treat_all", "all", ORANGE, "--"),
    ):
        values = [row[key]["value"] for row in rows]
        axes.plot(thresholds, values, color=colour, linewidth=2, linestyle=dash, label=label)
    axes.axhline(0, color=GREY, linewidth=1.2, linestyle=":", label="none")
    axes.set(xlabel="threshold", ylabel="net benefit", xlim=(0, 1))
    lowest = min(row["net_benefit"]["value"] for row in rows)
    # Acting on all soon falls without end, and so may a bundle's answers.
    axes.set_ylim(max(-1, min(lowest - 0.05, -0.25 * prevalence)), 1.1 * prevalence)
    axes.legend(frameon=False, title="act on", loc="best")
    _plain(axes)
    return _svg(figure)


STRESSED = (
    ("auroc", "AUROC", BLUE, "o", "-"),
    ("sensitivity", "sensitivity", ORANGE, "^", "--"),
    ("specificity", "specificity", GREEN, "v", "-."),
    ("flipped", "share of labels flipped", PURPLE, "s", ":"),
)


@rc_context(STYLE)
def stress_curves(stress: Report) -> str:
    """One panel for each corruption: figures over severity, 0 being the clean radiographs."""
    corruptions = stress["corruptions"]
    n_columns = 4
    n_rows = -(-len(corruptions) // n_columns)
    figure = Figure(figsize=(11, 0.7 + 2.2 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False).flat
    for axes, (name, severities) in zip(panels, corruptions.items(), strict=False):
        for key, label, colour, marker, dash in STRESSED:
            clean = 0.0 if key == "flipped" else stress["clean"][key]["value"]
            values = [clean, *(_value(at[key]) for at in severities)]
            axes.plot(
                [0, *(at["severity"] for at in severities)],
                [float("nan") if value is None else value for value in values],
                color=colour,
                marker=marker,
                markersize=4,
                linestyle=dash,
                label=label,
            )
        axes.set_title(name.replace("_", " "), fontsize=10)
        axes.set(ylim=(-0.03, 1.03))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    for axes in list(figure.axes)[len(corruptions) :]:
        axes.set_visible(False)
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(),
        loc="outside upper center",
        ncols=len(STRESSED),
        frameon=False,
    )
    figure.supxlabel("severity (0: clean; 1 and 2 occur in clinics)", fontsize=10)
    return _svg(figure)


def _areas(counts: list[int]) -> list[float]:
    """Of markers: large bins catch the eye, small ones stay visible."""
    return [20 + 130 * n / max(counts) for n in counts]


def _value(figure: Any) -> float | None:
    """Of a figure with its interval, or of a bare share."""
    value: float | None = figure["value"] if isinstance(figure, dict) else figure
    return value


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 5.0), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=x, ylabel=y, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _points(report: Report) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name, figures and marker of each operating point."""
    for number, (name, point) in enumerate(report["operating_points"].items()):
        label = f"{name} (≥ {point['threshold']:.3f})"
        yield label, point, MARKERS[number % len(MARKERS)]


def _svg(figure: Figure) -> str:
    """The ``<svg>`` element alone, without what only a file of its own needs."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(stream, format="svg", metadata=nothing)
    text = stream.getvalue()
    return text[text.index("<svg") :]
