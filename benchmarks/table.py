"""Prints rows and goals on a terminal, and runs one benchmark by itself.

Does not: measure, or write a page (``page``).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

from measurement import HEADER, Goal, Row, cells
from radiographs import SHARED, radiographs
from rich.console import Console
from rich.table import Table

_TEXT = {"benchmark", "what", "on", "note"}


def printed(rows: Sequence[Row], goals: Sequence[Goal] = ()) -> None:
    """Print one table, and under it what was wanted."""
    console = Console(width=None if Console().is_terminal else 240)
    shown = Table(box=None, pad_edge=False)
    for name in HEADER:
        shown.add_column(name, justify="left" if name in _TEXT else "right")
    for row in rows:
        shown.add_row(*cells(row))
    console.print(shown)
    for goal in goals:
        sign = "≥" if goal.at_least else "≤"
        console.print(
            f"{'met  ' if goal.met else 'SHORT'}  {goal.what}: {goal.value:.2f} {goal.unit}, "
            f"wanted {sign} {goal.limit:g} {goal.unit}",
            highlight=False,
        )


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    asked = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument(
        "--data",
        type=Path,
        default=SHARED if SHARED.is_dir() else None,
        help="holds originals and chest_xray/train [../shared/data; where absent, synthetic]",
    )
    asked.add_argument("--rounds", type=int, default=3, help="how often all take turns [3]")
    return asked


def run(
    measure: Callable[..., list[Row]],
    description: str | None,
    *,
    seconds: float,
    goals: Callable[[Sequence[Row]], list[Goal]] = lambda _: [],
) -> list[Row]:
    """The main of one benchmark: ``measure(radiographs, rounds=, seconds=)``; what it measured."""
    asked = arguments(description)
    asked.add_argument(
        "--seconds", type=float, default=seconds, help=f"for each case in a round [{seconds:g}]"
    )
    given = asked.parse_args()
    with radiographs(given.data) as files:
        rows = measure(files, rounds=given.rounds, seconds=given.seconds)
    printed(rows, goals(rows))
    return rows
