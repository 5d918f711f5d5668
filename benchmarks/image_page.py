"""The sections of docs/image.md, made of docs/reports/image.json; ``page`` writes them.

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

WANTED_MB = 450.0
WANTED_READY_S = 2.0


def image_goals(report: Report) -> str:
    """What was wanted of the service's image, and what came out."""
    size, start = report["size"], report["start"]
    goals = (
        Goal(
            "the service, unpacked, base included",
            size["root_mb"]["serve"],
            WANTED_MB,
            "MB",
        ),
        Goal("from start to ready, the slowest", start["max_s"], WANTED_READY_S, "s"),
    )
    return table(("", "wanted", "measured", "met"), [goal.cells() for goal in goals])


def image_size(report: Report) -> str:
    """Each target's megabytes, by where they come from."""
    size = report["size"]
    targets = list(size["added_mb"])
    rows = [
        ["layers: base image", *(f"{size['base_mb']:.0f}" for _ in targets)],
        ["layers: added", *(f"{size['added_mb'][target]:.0f}" for target in targets)],
        ["layers, all", *(f"{size['layers_mb'][target]:.0f}" for target in targets)],
        ["root file system", *(f"{size['root_mb'][target]:.0f}" for target in targets)],
    ]
    return table(("MB", *(f"`{target}`" for target in targets)), rows) + _told(size)


def image_parts(report: Report) -> str:
    """What the service's megabytes are, and what was left out."""
    size = report["size"]
    left_out = size["left_out_mb"]
    rows = [
        [name, f"{mb:.1f}", f"{left_out[name]:.1f}" if name in left_out else ""]
        for name, mb in size["parts_mb"].items()
    ]
    rows.append(["all", f"{sum(size['parts_mb'].values()):.1f}", f"{sum(left_out.values()):.1f}"])
    return table(("package", "MB", "left out"), rows)


def image_start(report: Report) -> str:
    """From the start of the process to the first 200 of /readyz."""
    start = report["start"]
    took = [f"{start[name]:.2f} s" for name in ("median_s", "max_s", "cpu_median_s")]
    header = ("starts", "median", "slowest", "CPU time, median")
    return table(header, [[str(start["n"]), *took]]) + _told(start)


def _told(of: Report) -> str:
    machine = of["machine"]
    processor = f"{machine['processor']} ({', '.join(machine['flags'])})"
    return (
        f"\n{machine['cores']} cores of {processor}, load average {machine['load_average']}; "
        f"{of['date']}, commit `{of['commit']}`, by `{of['command']}`.\n"
    )


SECTIONS: tuple[Callable[[Report], str], ...] = (
    image_goals,
    image_size,
    image_parts,
    image_start,
)
