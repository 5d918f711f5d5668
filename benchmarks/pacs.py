"""What the DICOM node keeps, how fast it is, and whether its answers are valid.

    .venv/bin/python benchmarks/pacs.py                     # all, some ten minutes
    .venv/bin/python benchmarks/pacs.py --only throughput

*kills*: the node is killed while radiographs go through it, and the archive is asked what it has.
*throughput*: radiographs of 2000×2000, beside sender and archive on the same cores.
*validity*: dciodvfy over the answers to radiographs of every kind.

Needs Debian's dcmtk, orthanc and dicom3tools. Everything listens on loopback alone.

Does not: compare with another program, or say what a network and a slower disk would add.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pacs_page
import pacs_partners  # noqa: F401 - makes the tests' factories importable
import page as pages
import pytest
from machine import REPOSITORY
from pacs_partners import partners
from radiographs import SHARED
from reliability import write_section

REPORT = REPOSITORY / "docs" / "reports" / "pacs.json"

N_KILLED, KILLS, SEED = 1000, 20, 1
OFFERED_PER_S, SECONDS, N_AS_FAST = 20.0, 90, 600


def kills(*, quick: bool) -> dict[str, Any]:
    import pacs_kills  # noqa: PLC0415

    n, n_kills = (60, 3) if quick else (N_KILLED, KILLS)
    return pacs_kills.measured(n, n_kills, SEED)


def throughput(*, quick: bool) -> dict[str, Any]:
    import pacs_throughput  # noqa: PLC0415

    seconds, fast = (5, 60) if quick else (SECONDS, N_AS_FAST)
    n = int(OFFERED_PER_S * seconds)
    runs = []
    for sending in pacs_throughput.SENDING:
        runs.append(pacs_throughput.measured(n, OFFERED_PER_S, sending))
        runs.append(pacs_throughput.measured(fast, None, sending))
    return {
        "side_px": pacs_throughput.SIDE_PX,
        "modalities": pacs_throughput.MODALITIES,
        "instances_in_a_study": pacs_throughput.STUDY,
        "archive": "storescp",
        "runs": runs,
    }


def validity(*, quick: bool) -> dict[str, Any]:  # noqa: ARG001 - it is quick
    import pacs_validity  # noqa: PLC0415

    return pacs_validity.measured(SHARED / "dicom")


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    part.__name__: part for part in (kills, throughput, validity)
}


def main() -> None:
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--only", choices=PARTS, action="append", help="[all]")
    asked.add_argument("--out", type=Path, default=REPORT, help="JSON report to fill [committed]")
    asked.add_argument("--quick", action="store_true", help="a short run, to try the programs")
    given = asked.parse_args()
    for name in given.only or PARTS:
        begun = time.monotonic()
        try:
            found = PARTS[name](quick=given.quick)
        except pytest.skip.Exception as exc:
            sys.exit(f"pacs: {exc.msg}")
        found |= {"quick": given.quick, "versions": partners()}
        write_section(given.out, name, found, took_s=time.monotonic() - begun)
        print(pacs_page.PARTS[name]({name: found}))
    if given.out == REPORT and not given.only:
        pages.write()


if __name__ == "__main__":
    main()
