"""The sections of docs/reliability.md, made of docs/reports/reliability.json; ``page`` writes them.

Does not: measure anything, or judge: what held was decided by the programs that measured.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "docs"))
from figures import table

Report = Mapping[str, Any]

LONG = {"fuzzing": 100_000, "soak": 20_000}
"""How many inputs and requests a committed run has at least."""

SHORT = "**A short run, to try the programs; the long one is still to come.**\n\n"


def holds(report: Report) -> str:
    """What must hold, and what was seen of it."""
    claims = (
        _mutants(report["fuzzing"]),
        _no_server_errors(report),
        _document(report["fuzzing"]["openapi"]),
        _faults(report["faults"]),
        _overload(report["overload"]),
        _draining(report["draining"]),
        _soak(report["soak"]),
        _one_bad_file(report["one_bad_file"]),
        _heatmaps(report["heatmaps"]),
    )
    rows = [[what, seen, "yes" if held else "**no**"] for what, seen, held in claims]
    short = any(report[name]["n"] < n for name, n in LONG.items())
    return (SHORT if short else "") + table(("what must hold", "seen", "holds"), rows)


Claim = tuple[str, str, bool]


def _mutants(of: Report) -> Claim:
    n = sum(stage["n_failures"] for stage in of["stages"])
    what = f"{of['n']:,} mutated inputs: each is read, refused with a known code, or cut off"
    return what, f"{n} were not", n == 0


def _no_server_errors(report: Report) -> Claim:
    seen = _statuses(report)
    n = sum(count for status, count in seen.items() if int(status) >= 500)
    what = "answers with a status of 500 or more, under fuzzing, faults and overload"
    return what, f"{n} of {sum(seen.values()):,}", n == 0


def _document(of: Report) -> Claim:
    what = f"the OpenAPI document, by {len(of['checks'])} checks of Schemathesis"
    return what, f"{of['n_failures']} failures, {of['n']:,} cases", of["exit_code"] == 0


def _faults(of: Report) -> Claim:
    what = f"{_minutes(of)} of faults: no wrong answer, no connection lost but a killed worker's"
    seen = f"{of['n_wrong_answers']} and {of['broken_elsewhere']} of {of['n']:,}"
    return what, seen, of["held"]


def _overload(of: Report) -> Claim:
    what = f"ten times the load ({of['connections']} connections): only 200 and 429"
    seen = Counter[str]()
    for load in (*of["asking_again_at_once"].values(), of["waiting_as_told"]):
        seen.update(load["statuses"])
    return what, _counts(seen), of["held"]


def _draining(of: Report) -> Claim:
    runs = of["workers"].values()
    accepted = Counter[str]()
    for run in runs:
        accepted.update(run["accepted_before"])
    dropped = sum(n for outcome, n in accepted.items() if outcome not in {"right", "429"})
    n = sum(run["signals"] for run in runs)
    what = f"SIGTERM under load, {n} times: nothing accepted is dropped, exit code 0"
    return what, f"{dropped} dropped of {sum(accepted.values()):,}", of["held"]


def _soak(of: Report) -> Claim:
    what = f"memory grows by less than 30 MB over {of['n']:,} requests"
    return what, f"{max(of['growth_mb']):.1f} MB", of["held"]


def _one_bad_file(of: Report) -> Claim:
    what = f"one bad file among {of['files_each']} costs only itself"
    seen = f"{of['good_answered_as_alone']:,} of {of['good']:,} others as if alone"
    return what, seen, of["held"]


def _heatmaps(of: Report) -> Claim:
    what = f"{of['n']} heatmaps asked for at once are, to the bit, those asked for in turn"
    return what, f"{of['equal_bytes']} of {of['n']}", of["held"]


def runs(report: Report) -> str:
    """When each part was measured, of which commit, by which command."""
    rows = [
        [
            name.replace("_", " "),
            of["date"],
            f"`{of['commit']}`",
            f"{of['took_s'] / 60:.1f}",
            f"`{of['command']}`",
        ]
        for name, of in report.items()
    ]
    one = report["fuzzing"]
    versions = ", ".join(f"{name} {version}" for name, version in one["versions"].items())
    machine = one["machine"]
    return table(("part", "date", "commit", "minutes", "command"), rows) + (
        f"\n{machine['cores']} cores of {machine['processor']}. {versions}, "
        f"Schemathesis {one['openapi']['schemathesis']}.\n"
    )


def fuzzing(report: Report) -> str:
    """What was sent, and what came back."""
    rows = [
        [
            stage["name"],
            f"{stage['n']:,}",
            _counts(stage["outcomes"]),
            f"{stage['slowest'][0][0]:.1f} s" if stage["slowest"] else "",
            f"{stage['memory_mb']:.0f} MB",
            str(stage["n_failures"]),
        ]
        for stage in report["fuzzing"]["stages"]
    ]
    return f"Seed {report['fuzzing']['seed']}.\n\n" + table(
        ("stage", "mutants", "outcomes", "slowest", "most memory", "failures"), rows
    )


def openapi(report: Report) -> str:
    """What Schemathesis asked, and which checks it made of every answer."""
    found = report["fuzzing"]["openapi"]
    checks = ", ".join(f"`{check}`" for check in found["checks"])
    return (
        f"{found['n']:,} cases, failures: {found['n_failures']}. Checks: {checks}.\n\n"
        f"Answers: {_counts(found['statuses'])}.\n"
    )


def faults(report: Report) -> str:
    """What went wrong on purpose, and what the clients saw of it."""
    found = report["faults"]
    rows = [
        ["questions answered", f"{found['n']:,}"],
        ["by status", _counts(found["statuses"])],
        ["wrong answers", str(found["n_wrong_answers"])],
        ["workers killed with SIGKILL", str(found["kills"])],
        ["connections lost with a killed worker", str(found["broken_at_a_kill"])],
        ["connections lost otherwise", str(found["broken_elsewhere"])],
        *([f"clients that {what}", f"{n:,}"] for what, n in found["disturbances"].items()),
        ["p50, p99, slowest", " ms, ".join(str(found[k]) for k in _TIMES) + " ms"],
    ]
    return table((f"{_minutes(found)}, {found['workers']} workers", ""), rows)


_TIMES = ("p50_ms", "p99_ms", "slowest_ms")


def overload(report: Report) -> str:
    """What came out under ten times the load."""
    found = report["overload"]
    rows = []
    for kind, load in found["asking_again_at_once"].items():
        share = load["answered_per_s"] / load["answered_per_s_of_few"]
        came = f"{load['answered_per_s']:.0f} answered a second, {100 * share:.0f} %"
        asked = f"{kind} files, asked again at once for {load['seconds']:.0f} s"
        rows.append([asked, _counts(load["statuses"]), f"{came} of what {found['few']} get"])
    told, single = found["waiting_as_told"], found["after_a_full_queue"]
    got_in = f"{told['got_in']} of {found['connections']} within {told['all_in_s']:.0f} s"
    tried = f"at the latest at attempt {told['most_attempts']}"
    asked = "all wait as `Retry-After` says"
    rows.append([asked, _counts(told["statuses"]), f"{got_in}, {tried}"])
    asked = f"one comes to a full queue, and again as told, {single['n']} times"
    was_told = " or ".join(str(seconds) for seconds in single["retry_after_s"])
    empty = f"the queue was empty after {single['queue_empty_after_s']:.1f} s at the latest"
    rows.append([asked, f"200 × {single['got_in_at_once']}", f"told {was_told} s; {empty}"])
    return table((f"{found['connections']} connections, {found['places']} places", "", ""), rows)


def draining(report: Report) -> str:
    """What became of requests before and after the signal."""
    rows = [
        [
            workers,
            str(run["signals"]),
            _counts(run["accepted_before"]),
            _counts(run["just_before"]),
            str(run["of_these_in_flight"]),
            _counts(run["after"]),
            f"{run['slowest_end_s']:.1f} s",
        ]
        for workers, run in report["draining"]["workers"].items()
    ]
    return table(
        (
            "workers",
            "signals",
            "sent before",
            "in the last 0.25 s",
            "of these in flight",
            "sent after",
            "longest end",
        ),
        rows,
    )


def soak(report: Report) -> str:
    """What was asked, and what the memory did."""
    found = report["soak"]
    growth = " and ".join(f"{mb:.1f} MB" for mb in found["growth_mb"])
    return (
        f"{found['n']:,} requests in {found['seconds'] / 60:.1f} minutes, {found['workers']} "
        f"workers. After the first {found['warm_up']:,} requests they grew by {growth}, to at most "
        f"{found['most_mb']:.0f} MB. Answers: {_counts(found['outcomes'])}.\n"
    )


def _statuses(report: Report) -> Counter[str]:
    """Every answer that was counted under fuzzing, faults and overload, by status."""
    found = Counter[str]()
    for stage in report["fuzzing"]["stages"]:
        for outcome, n in stage["outcomes"].items():
            found[outcome.split(" ")[0]] += n
    found.update(report["faults"]["statuses"])
    for load in report["overload"]["asking_again_at_once"].values():
        found.update(load["statuses"])
    found.update(report["overload"]["waiting_as_told"]["statuses"])
    return Counter({status: n for status, n in found.items() if status.isdigit()})


def _minutes(of: Report) -> str:
    return f"{of['seconds'] / 60:.0f} minutes"


def _counts(of: Mapping[str, int]) -> str:
    return ", ".join(f"{what} × {n:,}" for what, n in of.items())


SECTIONS = (holds, fuzzing, openapi, faults, overload, draining, soak, runs)
