"""The sections of docs/archive.md, made of docs/reports/archive.json; ``page`` writes them.

Does not: measure anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from measurement import Goal

sys.path.append(str(Path(__file__).parents[1] / "docs"))
from figures import table

Report = Mapping[str, Any]

QUICK = "**A quick run, to try the programs: its figures are noise.**\n\n"
BOUNDS = ("threads", "processes")


def archive_goals(report: Report) -> str:
    """What was wanted of scoring, and what came out."""
    rows = [goal.cells() for goal in goals(report)]
    return table(("on these cores", "wanted", "measured", "met"), rows)


def goals(report: Report) -> list[Goal]:
    """Of all parts that were measured."""
    found = []
    if "limit" in report:
        for kind in report["limit"]["files"]:
            found.append(
                Goal(
                    f"{kind} in a folder: files/s, to the in-process limit's",
                    _rates(report["limit"], kind)["folder"] / _bound(report["limit"], kind),
                    0.95,
                    "×",
                    at_least=True,
                )
            )
    if "size" in report:
        first, *_, last = report["size"]["runs"]
        start = _start_s(report["size"])
        ratio = _each_ms(last, start) / _each_ms(first, start)
        found.append(
            Goal(f"a file of {last['n']:,}, to a file of {first['n']:,}", ratio, 1.05, "×")
        )
    return found


def _rates(limit: Report, kind: str) -> dict[str, float]:
    return {row["what"]: row["per_s"] for row in limit["rows"] if row["on"] == kind}


def _bound(limit: Report, kind: str) -> float:
    rates = _rates(limit, kind)
    return max(rates[bound] for bound in BOUNDS)


def limit(report: Report) -> str:
    """Files a second of every kind of archive, beside the in-process limit."""
    of = report["limit"]
    rows = []
    for row in of["rows"]:
        bound = row["what"] in BOUNDS
        rows.append(
            [
                row["on"],
                f"limit: {row['what']}" if bound else row["what"],
                f"{row['n']:,}",
                f"{row['per_s']:.1f}",
                f"{row['cpu_ms']:.1f}",
                "" if bound else f"{row['per_s'] / _bound(of, row['on']):.2f}",
            ]
        )
    header = ("files", "as", "n", "files/s", "CPU ms each", "× the limit")
    return _quick(of) + table(header, rows) + _told(of)


def size(report: Report) -> str:
    """Time and memory by the number of files."""
    of = report["size"]
    start = _start_s(of)
    rows = [
        [
            f"{run['n']:,}",
            f"{run['wall_s']:.1f}",
            f"{run['n'] / run['wall_s']:.1f}",
            f"{_each_ms(run, start):.2f}",
            f"{run['cpu_s'] / run['n'] * 1000:.1f}",
            f"{run['peak_mb']:.0f}",
        ]
        for run in of["runs"]
    ]
    header = ("files", "s", "files/s", "ms each, without the start", "CPU ms each", "peak MB")
    return _quick(of) + table(header, rows) + f"\nThe start takes {start:.2f} s. " + _told(of)


def ray(report: Report) -> str:
    """Here and on Ray."""
    of = report["ray"]
    rows = [
        [
            run["where"],
            str(run["cores"]),
            f"{run['n']:,}",
            f"{run['wall_s']:.1f}",
            f"{run['n'] / run['wall_s']:.1f}",
            {True: "yes", False: "**no**", None: ""}[run.get("same_rows")],
        ]
        for run in of["runs"]
    ]
    header = ("where", "cores", "files", "s", "files/s", "the same file")
    return _quick(of) + table(header, rows) + _told(of)


def _start_s(size: Report) -> float:
    """What does not grow with the files."""
    return float(size["start"]["wall_s"])


def _each_ms(run: Report, start_s: float) -> float:
    return float((run["wall_s"] - start_s) / run["n"] * 1000)


def _quick(of: Report) -> str:
    return QUICK if of["quick"] else ""


def _told(of: Report) -> str:
    if "machine" not in of:
        return ""
    files = "; ".join(
        f"*{kind}*: {facts['source']}, {facts['mean_bytes'] / 1000:.0f} kB on average"
        for kind, facts in of["files"].items()
    )
    machine = of["machine"]
    return (
        f"\n{files}. {machine['cores']} cores of {machine['processor']} "
        f"({', '.join(machine['flags'])}), {of['date']}, commit `{of['commit']}`, by "
        f"`{of['command']}`.\n"
    )


PARTS: dict[str, Callable[[Report], str]] = {"limit": limit, "size": size, "ray": ray}
SECTIONS: tuple[Callable[[Report], str], ...] = (archive_goals, *PARTS.values())
