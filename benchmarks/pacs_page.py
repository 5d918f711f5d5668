"""The sections of docs/pacs.md, made of docs/reports/pacs.json; ``page`` writes them.

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

OFFERED_PER_S = 20.0
QUICK = "**A quick run, to try the programs: its figures are noise.**\n\n"


def pacs_goals(report: Report) -> str:
    """What was wanted of the node, and what came out."""
    rows = [goal.cells() for goal in goals(report)]
    return _quick(report) + table(("", "wanted", "measured", "met"), rows)


def goals(report: Report) -> list[Goal]:
    """Of all parts that were measured."""
    found = []
    if "kills" in report:
        found += _goals_of_kills(report["kills"])
    if "throughput" in report:
        found += _goals_of_throughput(report["throughput"])
    if "validity" in report:
        errors = sum(report["validity"]["errors"].values())
        n = report["validity"]["answers"]
        found.append(Goal(f"errors that dciodvfy finds in {n} answers", errors, 0, "errors"))
    return found


def _goals_of_kills(of: Report) -> list[Goal]:
    during = f"of {of['n']:,} instances, {of['kills']} kills"
    return [
        Goal(
            f"{during}: exactly one {kind}",
            of["exactly_one"][kind],
            of["n"],
            kind + "s",
            at_least=True,
        )
        for kind in ("report", "overlay")
    ]


def _goals_of_throughput(of: Report) -> list[Goal]:
    found = []
    for run in of["runs"]:
        what = f"{of['side_px']}×{of['side_px']}, {run['sending']}"
        if run["offered_per_s"] is None:
            fast = f"{what}: answered, as fast as it goes"
            limit = OFFERED_PER_S
            found.append(Goal(fast, run["answered_per_s"], limit, "instances/s", at_least=True))
        else:
            offered = f"{what}: {run['offered_per_s']:g}/s offered, unanswered at the end"
            limit = run["offered_per_s"]  # what comes in a second
            found.append(Goal(offered, run["backlog_at_end"], limit, "instances"))
    return found


def pacs_kills(report: Report) -> str:
    """What became of instances while the node was killed."""
    of = report["kills"]
    rows = [
        ["instances sent, each until it was acknowledged", f"{of['n']:,}"],
        ["kills of the main process, while there was work", f"{of['kills_at_work']}"],
        ["associations that broke or were refused", str(of["sendings_broken"])],
        *(
            [f"sources with exactly one {kind}", f"{of['exactly_one'][kind]:,}"]
            for kind in ("report", "overlay")
        ),
        ["with none, with several", f"{_sum(of['missing'])}, {_sum(of['double'])}"],
        ["answers in another study than their source", str(of["in_the_wrong_study"])],
        ["answers that came to the archive again, and made nothing new", str(of["received_again"])],
    ]
    return table((f"{of['took_s']:.0f} s, seed {of['seed']}", ""), rows)


def pacs_throughput(report: Report) -> str:
    """Rates, latencies, and where the CPU went."""
    of = report["throughput"]
    rows = [
        [
            _offered(run),
            run["sending"],
            f"{run['n']:,}",
            f"{run['received_per_s']:.1f}",
            f"{run['answered_per_s']:.1f}",
            str(run["backlog_at_end"]),
            " / ".join(f"{run['latency_s'][which]:.1f}" for which in ("median", "p95", "worst")),
        ]
        for run in of["runs"]
    ]
    header = (
        *("offered", "sent with", "n", "received/s", "answered/s", "unanswered at the end"),
        "s from receipt to answer: median / 95 % / worst",
    )
    return table(header, rows)


def pacs_cpu(report: Report) -> str:
    """CPU time of an instance by process, and the memory of the node's."""
    runs = report["throughput"]["runs"]
    names = list(runs[0]["cpu_ms_each"])
    header = ("CPU ms of an instance", *names, "peak memory of the node's processes, MB")
    rows = [
        [
            f"{_offered(run)}, {run['sending']}",
            *(f"{run['cpu_ms_each'][name]:.0f}" for name in names),
            ", ".join(f"{work} {mb}" for work, mb in run["peak_mb"]),
        ]
        for run in runs
    ]
    return table(header, rows)


def pacs_validity(report: Report) -> str:
    """What dciodvfy said, by text."""
    of = report["validity"]
    said = [*of["errors"].items(), *of["warnings"].items()]
    rows = [
        [text.replace("|", "\\|").replace("<", "`").replace(">", "`"), str(n)] for text, n in said
    ]
    made = of["sources"] - of["of_these_published"]
    return (
        f"{of['answers']} answers to {made} radiographs made for it and "
        f"{of['of_these_published']} published ones; errors: {_sum(of['errors'])}.\n\n"
        + table(("dciodvfy says", "times"), rows)
    )


def pacs_runs(report: Report) -> str:
    """When each part was measured, of which commit, by which command."""
    rows = [
        [name, of["date"], f"`{of['commit']}`", f"{of['took_s'] / 60:.1f}", f"`{of['command']}`"]
        for name, of in report.items()
    ]
    one = report["throughput"]
    machine = one["machine"]
    processor = f"{machine['processor']} ({', '.join(machine['flags'])})"
    versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    return table(("part", "date", "commit", "minutes", "command"), rows) + (
        f"\n{machine['cores']} cores of {processor}. {versions}.\n"
    )


def _offered(run: Report) -> str:
    return "as fast as it goes" if run["offered_per_s"] is None else f"{run['offered_per_s']:g}/s"


def _quick(report: Report) -> str:
    return QUICK if any(of["quick"] for of in report.values()) else ""


def _sum(counts: Mapping[str, int]) -> int:
    return sum(counts.values())


SECTIONS = (pacs_goals, pacs_kills, pacs_throughput, pacs_cpu, pacs_validity, pacs_runs)

PARTS: dict[str, Callable[[Report], str]] = {
    "kills": pacs_kills,
    "throughput": lambda report: pacs_throughput(report) + "\n" + pacs_cpu(report),
    "validity": pacs_validity,
}
