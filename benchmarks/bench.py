"""Runs every benchmark and prints one table: `make bench`.

    .venv/bin/python benchmarks/bench.py                    # all; writes the report and its page
    .venv/bin/python benchmarks/bench.py decoding serving   # some; writes nothing
    .venv/bin/python benchmarks/bench.py --quick            # all for a moment, to try them

The whole takes about twelve minutes, on a machine that should have nothing else to do. It goes into
docs/reports/performance.json, and from there into docs/performance.md (``page``).

Does not: fail where a figure falls short of what was wanted; it says so.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import decoding
import options
import page
import scoring
import serving
import training
from load import LoadError, wrk
from machine import REPOSITORY, commit, machine, versions
from measurement import Row
from processes import ServerError
from radiographs import radiographs
from table import arguments, printed

import inference

BENCHMARKS = {
    module.__name__: module for module in (serving, options, decoding, inference, scoring, training)
}
NEED_WRK = {"serving", "options"}
QUICK_SECONDS = 3.0
REPORT = REPOSITORY / "docs" / "reports" / "performance.json"


def main() -> None:
    asked = arguments(__doc__)
    asked.add_argument("names", nargs="*", help=f"of {', '.join(BENCHMARKS)} [all]")
    asked.add_argument("--quick", action="store_true", help="one round, short: noise, but it runs")
    asked.add_argument("--out", type=Path, help="report to write [of a whole run, the committed]")
    given = asked.parse_args()
    names = given.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        asked.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    rounds = 1 if given.quick else given.rounds

    started, before = time.monotonic(), machine()
    rows: list[Row] = []
    try:
        if NEED_WRK & set(names):
            wrk()
        with radiographs(given.data) as files:
            facts = {of.kind: of.facts() for of in files}
            for name in names:
                benchmark = BENCHMARKS[name]
                seconds = min(benchmark.SECONDS, QUICK_SECONDS if given.quick else math.inf)
                print(f"{time.monotonic() - started:4.0f} s: {name}", file=sys.stderr, flush=True)
                rows += benchmark.measure(files, rounds=rounds, seconds=seconds)
    except (LoadError, ServerError) as exc:
        sys.exit(f"bench: {exc}")
    goals = serving.goals(rows) if "serving" in names else []
    printed(rows, goals)

    out = given.out or (None if given.names or given.quick else REPORT)
    if out is None:
        return
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f".venv/bin/python {shlex.join(sys.argv)}",
        "commit": commit(),
        "quick": given.quick,
        "rounds": rounds,
        "took_s": round(time.monotonic() - started),
        "machine": before,
        "versions": versions(),
        "files": facts,
        "goals": [_rounded(asdict(goal)) for goal in goals],
        "rows": [_rounded(asdict(row)) for row in rows],
    }
    out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if out == REPORT:
        page.write()


def _rounded(facts: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in facts.items()}


if __name__ == "__main__":
    main()
