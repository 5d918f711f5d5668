"""The table of docs/networks.md, made of docs/reports/networks.json; ``page`` writes it.

Does not: measure anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "docs"))
from figures import table

Report = Mapping[str, Any]

QUICK = "**A quick run, to try the programs: its figures are noise.**\n\n"


def networks(report: Report) -> str:
    """One row a network: what it reaches by the short recipe, its size, and what a pass takes."""
    quality, speed = report["quality"], report["speed"]
    of = {row["network"]: row for row in speed["rows"]}
    rows = []
    for run in quality["runs"]:
        cost = of[run["network"]]
        taught = f", taught by {run['taught_by']}" if run["taught_by"] else ""
        rows.append(
            [
                run["network"] + taught,
                f"{cost['parameters'] / 1e6:.1f}",
                *(f"{cost[precision]['size_mb']:.1f}" for precision in ("int8", "fp32")),
                *(f"{cost[precision]['p50_ms']:.1f}" for precision in ("int8", "fp32")),
                "not measured" if cost["gpu_ms"] is None else f"{cost['gpu_ms']:.3f}",
                *(_figure(run["heldout"][name]) for name in ("auroc", "accuracy")),
                *(_figure(run["adults"][name]) for name in ("auroc", "accuracy")),
                f"{run['parity']['int8_p99']:.2f}",
            ]
        )
    header = (
        "network",
        "parameters, M",
        "MB int8",
        "MB fp32",
        "ms int8",
        "ms fp32",
        "ms on a GPU",
        "AUROC, held-out",
        "accuracy, held-out",
        "AUROC, adults",
        "accuracy, adults",
        "int8 moves the logit by",
    )
    quick = QUICK if quality["quick"] or speed["quick"] else ""
    return quick + table(header, rows) + _told(quality, speed)


def _figure(of: Report) -> str:
    return f"{of['value']:.3f} ({of['ci_low']:.3f}–{of['ci_high']:.3f})"


def _told(quality: Report, speed: Report) -> str:
    first, machine = quality["runs"][0], speed["machine"]
    gpu = f"; GPU: {speed['gpu']}, batches of {speed['gpu_batch']}, bf16" if speed["gpu"] else ""
    return (
        f"\nQuality: `{quality['recipe']}` at {quality['side_px']} px, seed 0; held-out: "
        f"n = {first['heldout']['n']:,} of {first['heldout']['n_subjects']:,} subjects; adults: "
        f"n = {first['adults']['n']}; {quality['date']}, commit `{quality['commit']}`. Time: "
        f"median of one pass at {speed['side_px']} px on one core of {machine['processor']} "
        f"({', '.join(machine['flags'])}){gpu}; {speed['date']}, commit `{speed['commit']}`. "
        f"Both by `benchmarks/networks.py`. *int8 moves the logit by*: 99th percentile over "
        f"corrupted held-out radiographs and adults.\n"
    )


SECTIONS: tuple[Callable[[Report], str], ...] = (networks,)
