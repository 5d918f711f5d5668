"""What is measured: laps, the row of the table that they make, and what was wanted of it.

Does not: know what is measured, or print (``table``, ``page``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import numpy as np

MIN_FOR_P99 = 100
"""Of fewer calls the slowest hundredth is not one call: no p99 is given."""

HEADER = (
    "benchmark",
    "what",
    "on",
    "connections",
    "n",
    "per second",
    "p50 ms",
    "p99 ms",
    "CPU ms each",
    "MB",
    "note",
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    ``n`` and ``per_s`` count what is done (requests, images), ``p50_ms`` and ``p99_ms`` are of one
    call (which may do several at once), ``cpu_ms`` is the CPU time of every process that has a part
    in it but the load generator, divided by ``n``; ``memory_mb`` is the resident memory of the
    process (of the largest, where there are several) after it.
    """

    benchmark: str
    what: str
    on: str
    n: int
    per_s: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    cpu_ms: float | None = None
    memory_mb: float | None = None
    connections: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Goal:
    """What was wanted: ``value`` at least or at most ``limit``, both in ``unit``."""

    what: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def cells(self) -> list[str]:
        """As text: what, what was wanted, what was measured, and whether that is enough."""
        wanted = f"{'≥' if self.at_least else '≤'} {self.limit:g} {self.unit}"
        counted = isinstance(self.value, int)
        measured = f"{self.value if counted else f'{self.value:.2f}'} {self.unit}"
        return [self.what, wanted, measured, "yes" if self.met else "**no**"]


@dataclass(slots=True)
class Laps:
    """What calls took: the wall time of each, and the CPU time of all of them."""

    wall_s: list[float] = field(default_factory=list)
    cpu_s: float = 0.0

    def add(self, call: Callable[[], object], seconds: float) -> None:
        """Call again and again, at least once, until ``seconds`` have passed."""
        cpu_s, now = time.process_time(), time.perf_counter()
        end = now + seconds
        while True:
            call()
            before, now = now, time.perf_counter()
            self.wall_s.append(now - before)
            if now >= end:
                break
        self.cpu_s += time.process_time() - cpu_s

    def row(self, benchmark: str, what: str, on: str, *, each: int = 1, note: str = "") -> Row:
        """The row of these laps, each of which did ``each``, one after the other."""
        n = len(self.wall_s) * each
        return Row(
            benchmark,
            what,
            on,
            n,
            per_s=n / sum(self.wall_s),
            p50_ms=median(self.wall_s) * 1000,
            p99_ms=p99_ms(self.wall_s),
            cpu_ms=self.cpu_s / n * 1000,
            note=note,
        )


def p99_ms(wall_s: Sequence[float]) -> float | None:
    """The 99th percentile in ms; None of fewer than ``MIN_FOR_P99``."""
    return float(np.percentile(wall_s, 99)) * 1000 if len(wall_s) >= MIN_FOR_P99 else None


def in_turns(
    cases: Mapping[str, Callable[[], object]], *, rounds: int, seconds: float
) -> dict[str, Laps]:
    """Give every case ``seconds`` in turn, ``rounds`` times over.

    In turns, because other work on the machine should slow all cases alike. Each turn begins with
    a call that is not counted: the one before may have left threads spinning and caches cold.
    """
    laps = {case: Laps() for case in cases}
    for _ in range(rounds):
        for case, call in cases.items():
            call()
            laps[case].add(call, seconds)
    return laps


def median_of(rows: Sequence[Row]) -> Row:
    """One row from those of several rounds: ``n`` added up, of every figure the median."""

    def middle(figure: str) -> float | None:
        values = [v for v in (getattr(row, figure) for row in rows) if v is not None]
        return median(values) if values else None

    figures = ("per_s", "p50_ms", "p99_ms", "cpu_ms", "memory_mb")
    return replace(
        rows[0], n=sum(row.n for row in rows), **{figure: middle(figure) for figure in figures}
    )


def cells(row: Row) -> list[str]:
    """The row as text, in the order of ``HEADER``."""

    def number(value: float | None) -> str:
        if value is None:
            return ""
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}" if value < 1 else f"{value:.1f}"

    return [
        row.benchmark,
        row.what,
        row.on,
        str(row.connections or ""),
        str(row.n),
        *(number(v) for v in (row.per_s, row.p50_ms, row.p99_ms, row.cpu_ms)),
        "" if row.memory_mb is None else f"{row.memory_mb:.0f}",
        row.note,
    ]
