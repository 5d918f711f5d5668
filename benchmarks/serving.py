"""The real server under load, against the in-process limit and against the original's way.

    .venv/bin/python benchmarks/serving.py

`chestxray serve` is started as a user would, with no settings but a port; ``original.py`` is how
the original does it; ``limit`` decodes and predicts without HTTP. In every round all take turns, on
full-size originals and on small files, at 1, 8 and 64 connections, and medians over the rounds are
reported. Load comes from wrk on the same cores; its own CPU time is told and not counted.

Does not: compare settings (``options``), or send anything that should be refused.
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from limit import PROCESSES, THREADS, InProcessLimit
from load import LoadError, load, write_bodies, wrk
from machine import REPOSITORY
from measurement import Goal, Row, median_of
from processes import Server, ServerError, started
from radiographs import Radiographs
from table import run

SECONDS = 5.0
"""For each case in a round."""

SERVICE = "chestxray serve"
HEATMAP = "chestxray serve, heatmap=true"
ORIGINAL = "the original's way"
START = "start until ready"
EMPTY = "chestxray serve, GET /livez"

SERVE = (str(REPOSITORY / ".venv" / "bin" / "chestxray"), "serve")
SERVE_AS_ORIGINAL = (sys.executable, str(REPOSITORY / "benchmarks" / "original.py"))
CONNECTIONS = (1, 8, 64)
AT = 8
"""Connections at which the service is judged: enough to keep all cores busy, few enough to wait for
nothing but them."""
N_STARTS = 3


def measure(files: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    """A row for each of them, on each kind of file, at each number of connections.

    Raises:
        LoadError, ServerError: see there.
    """
    wrk()  # before anything takes time
    found: dict[tuple[str, str, int | None], list[Row]] = defaultdict(list)

    def note(row: Row) -> None:
        found[row.what, row.on, row.connections].append(row)

    for _ in range(N_STARTS):
        note(_start())
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies = {of.kind: write_bodies(of.contents(), folder / of.kind) for of in files}
        limit = stack.enter_context(InProcessLimit())
        service = stack.enter_context(started(SERVE, "/readyz"))
        original = stack.enter_context(started(SERVE_AS_ORIGINAL, "/metadata"))
        for server in (service, original):  # what a first request costs, none of these pays
            load(server.address, "/predict", bodies=bodies["small"], connections=AT, seconds=1)

        for _ in range(rounds):
            for of in files:
                sent = (of.kind, bodies[of.kind])
                for connections in CONNECTIONS:
                    # many connections take their time before the first of them is answered
                    time_s = seconds * 2 if connections > AT else seconds
                    note(loaded(service, SERVICE, *sent, connections, time_s))
                    if connections == AT:  # what is compared comes close together
                        note(loaded(service, HEATMAP, *sent, AT, seconds, "/predict?heatmap=true"))
                        note(limit.in_threads(of, seconds))
                        note(limit.in_processes(of, seconds))
                    note(loaded(original, ORIGINAL, *sent, connections, time_s))
            note(loaded(service, EMPTY, "an empty request", None, AT, seconds, "/livez"))
    return with_ratios([median_of(rows) for rows in found.values()])


def loaded(
    server: Server,
    what: str,
    on: str,
    bodies: Path | None,
    connections: int,
    seconds: float,
    path: str = "/predict",
) -> Row:
    """One load, on a server that is quiet again when this returns.

    Raises:
        LoadError, ServerError: see there.
    """
    before_s = server.cpu_s()
    result = load(server.address, path, bodies=bodies, connections=connections, seconds=seconds)
    row = Row(
        "serving",
        what,
        on,
        result.n,
        per_s=result.n / result.seconds,
        p50_ms=result.p50_ms,
        p99_ms=result.p99_ms,
        cpu_ms=(server.cpu_s() - before_s) / result.n * 1000,
        memory_mb=server.memory_mb(),
        connections=connections,
        note=f"wrk {result.cpu_s / result.n * 1000:.2f} ms",
    )
    server.wait_until_quiet()
    return row


def _start() -> Row:
    with started(SERVE, "/readyz") as server:
        return Row(
            "serving",
            START,
            "the shipped bundle",
            1,
            p50_ms=server.ready_s * 1000,
            cpu_ms=server.cpu_s() * 1000,
            memory_mb=server.memory_mb(),
        )


# --- what rows say of one another


def only(rows: Iterable[Row], what: str, kind: str, connections: int | None = None) -> Row:
    """The one row of it."""
    (found,) = (
        row for row in rows if (row.what, row.on, row.connections) == (what, kind, connections)
    )
    return found


def best(rows: Iterable[Row], whats: Sequence[str], kind: str) -> Row:
    """The one with the most per second, at whichever number of connections."""
    return max((r for r in rows if r.what in whats and r.on == kind), key=lambda r: r.per_s or 0)


def limit_of(rows: Sequence[Row], kind: str) -> Row:
    return best(rows, (THREADS, PROCESSES), kind)


def with_ratios(rows: Sequence[Row]) -> list[Row]:
    """The rows, those of the service with the ratios to the others at as many connections."""

    def noted(row: Row) -> Row:
        if row.what != SERVICE:
            return row
        limit, original = limit_of(rows, row.on), only(rows, ORIGINAL, row.on, row.connections)
        ratios = (
            f"{row.per_s / original.per_s:.1f} × the original's way, "
            f"{row.per_s / limit.per_s:.2f} × the limit; CPU {row.cpu_ms / limit.cpu_ms:.2f} × its"
        )
        return replace(row, note=f"{ratios}; {row.note}")

    return [noted(row) for row in rows]


def goals(rows: Sequence[Row]) -> list[Goal]:
    """What issue 4 asks of the service on two cores."""
    kinds = sorted({row.on for row in rows if row.what == SERVICE})
    found: list[Goal] = []
    for kind in kinds:
        service, heatmap = only(rows, SERVICE, kind, AT), only(rows, HEATMAP, kind, AT)
        faster = best(rows, [SERVICE], kind).per_s / best(rows, [ORIGINAL], kind).per_s
        found += [
            Goal(f"{kind}: requests/s, to the original's way", faster, 6, "×", at_least=True),
            Goal(
                f"{kind}: CPU of a request, to the in-process limit's",
                service.cpu_ms / limit_of(rows, kind).cpu_ms,
                1.10,
                "×",
            ),
            Goal(f"{kind}: p99, to p50", service.p99_ms / service.p50_ms, 1.6, "×"),
            Goal(
                f"{kind}: CPU with a heatmap, to without",
                heatmap.cpu_ms / service.cpu_ms,
                1.10,
                "×",
            ),
        ]
    start = only(rows, START, "the shipped bundle")
    most = max(row.memory_mb for row in rows if row.what in {SERVICE, HEATMAP})
    return [
        *found,
        Goal("start until ready", start.p50_ms / 1000, 2, "s"),
        Goal("resident memory after the load", most, 250, "MB"),
    ]


if __name__ == "__main__":
    try:
        run(measure, __doc__, seconds=SECONDS, goals=goals)
    except (LoadError, ServerError) as exc:
        sys.exit(f"serving: {exc}")
