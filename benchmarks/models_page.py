"""The sections on several models of docs/operations.md, made of docs/reports/models.json.

Does not: measure anything (``models`` does).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "docs"))
from figures import table

Report = Mapping[str, Any]


def models_cost(report: Report) -> str:
    """What a second bundle and a shadow cost, alone and with all cores busy."""
    cost = report["cost"]
    idle_mb = cost["memory_when_ready_mb"]
    rows = [
        [
            row["what"],
            str(row["connections"]),
            f"{row['per_s']:.1f}",
            f"{row['cpu_ms']:.1f}",
            f"{row['p50_ms']:.0f}",
            f"{row['p99_ms']:.0f}",
            _memory(idle_mb.get(row["what"]), row["memory_mb"]),
            row["note"],
        ]
        for row in cost["rows"]
    ]
    header = (
        *("served", "connections", "requests/s", "CPU ms of a request", "p50 ms", "p99 ms"),
        *("MB when ready / under load", ""),
    )
    return table(header, rows) + _told(cost, f"n = {sum(r['n'] for r in cost['rows']):,} requests")


def _memory(idle_mb: float | None, loaded_mb: float) -> str:
    return "" if idle_mb is None else f"{idle_mb:.0f} / {loaded_mb:.0f}"


def models_replaced(report: Report) -> str:
    """Two bundles and a shadow under load, the default replaced again and again."""
    runs = [report["replaced in one process"], report["replaced in two workers"]]
    rows = [
        ["replacements, summed over the workers", *(f"{r['replacements']:.0f}" for r in runs)],
        ["asked", *(f"{r['n']:,}" for r in runs)],
        ["lost requests", *(str(r["lost_requests"]) for r in runs)],
        ["wrong answers", *(str(r["wrong_answers"]) for r in runs)],
        ["answers that showed the shadow", *(str(r["answers_by_bundle"]["shadow"]) for r in runs)],
        ["slowest answer, s", *(f"{r['slowest_s']:.2f}" for r in runs)],
        [
            "MB of the largest worker: before / at the most",
            *(f"{r['memory_before_mb']:.0f} / {r['memory_peak_mb']:.0f}" for r in runs),
        ],
    ]
    clients = "6 clients, 2 bundles and a shadow of a fifth"
    told = _told(runs[0], f"{clients}, {runs[0]['seconds']:.0f} s each")
    return table(("", "one process", "two workers"), rows) + told


def _told(of: Report, what: str) -> str:
    machine = of["machine"]
    return (
        f"\n{what}; full-size JPEGs; {machine['cores']} cores of {machine['processor']} "
        f"({', '.join(machine['flags'])}), clients on the same cores; {of['date']}, commit "
        f"`{of['commit']}`, by `{of['command']}`.\n"
    )


SECTIONS: tuple[Callable[[Report], str], ...] = (models_cost, models_replaced)
