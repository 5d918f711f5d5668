"""Writes the tables of pages from committed reports, or checks that they are theirs.

    .venv/bin/python benchmarks/page.py            # writes
    .venv/bin/python benchmarks/page.py --check    # exits 1 and names what is stale

What stands between ``<!-- figures:NAME -->`` and ``<!-- /figures -->`` of a page is what its
function in ``SECTIONS`` makes of its report in docs/reports.

Does not: measure anything, or know the pages of ``docs/figures.py``, which have figures of the
model.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import archive_page
import image_page
import models_page
import networks_page
import pacs_page
import reliability_page
from measurement import HEADER, Goal, Row, cells

REPOSITORY = Path(__file__).parents[1]
sys.path.append(str(REPOSITORY / "docs"))
from figures import SECTION, table  # noqa: E402 - no part of a package either

Report = Mapping[str, Any]
Section = Callable[[Report], str]


class PageError(Exception):
    """A page and ``SECTIONS`` do not have the same sections, or a file is missing."""


# --- docs/performance.md


def goals(report: Report) -> str:
    """What was wanted of the service, and what came out."""
    rows = [Goal(**told).cells() for told in report["goals"]]
    warning = "**A quick run, to try the programs: its figures are noise.**\n\n"
    shown = table(("on these cores", "wanted", "measured", "met"), rows)
    return (warning if report["quick"] else "") + shown


def rows(report: Report) -> str:
    """The one table of ``make bench``."""
    return table(HEADER, [cells(Row(**told)) for told in report["rows"]])


def conditions(report: Report) -> str:
    """On what, with what, when, for how long, and by which command."""
    machine, files = report["machine"], report["files"]
    processor = f"{machine['processor']} ({', '.join(machine['flags'])})"
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    minutes = report["took_s"] / 60
    told = [
        f"{report['date']}, commit `{report['commit']}`, by `{report['command']}`.",
        f"{report['rounds']} rounds in {minutes:.0f} minutes; medians of them.",
        f"{machine['cores']} cores of {processor}, load average {machine['load_average']} before.",
        *(
            f"*{kind}*: {of['n']} {of['source']}, {of['mean_bytes'] / 1000:.0f} kB on average."
            for kind, of in files.items()
        ),
        f"{versions}.",
    ]
    return "\n".join(told) + "\n"


# --- docs/reading-page.md


def measured(report: Report) -> str:
    """What the reading page took in a browser: of every figure the median and the worst."""
    rows = [
        [
            of["what"],
            str(of["n"]),
            *(f"{of[which]:.3g} {of['unit']}" for which in ("median", "worst")),
        ]
        for of in report["figures"]
    ]
    return table(("in the browser", "n", "median", "worst"), rows)


# --- docs/training.md


def training(report: Report) -> str:
    """Steps of the shipped recipe: bare, fed by the loop, and in several processes."""
    of = report["training"]
    machine = of["machine"]
    rows = [
        [row["what"], row["on"], f"{row['per_s']:.1f}", row["note"] or ""] for row in of["rows"]
    ]
    return (
        table(("what", "a batch", "images/s", ""), rows)
        + f"\n{machine['cores']} cores of {machine['processor']} ({', '.join(machine['flags'])}); "
        f"{of['date']}, commit `{of['commit']}`, by `{of['command']}`.\n"
    )


SECTIONS: dict[tuple[str, str], tuple[str, Section]] = {
    ("docs/performance.md", "goals"): ("performance.json", goals),
    ("docs/performance.md", "rows"): ("performance.json", rows),
    ("docs/performance.md", "conditions"): ("performance.json", conditions),
    ("docs/training.md", "training"): ("training.json", training),
    ("docs/reading-page.md", "page_goals"): ("reading_page.json", goals),
    ("docs/reading-page.md", "page_figures"): ("reading_page.json", measured),
    ("docs/reading-page.md", "page_conditions"): ("reading_page.json", conditions),
} | {
    (page, section.__name__): (report, section)
    for page, report, sections in (
        ("docs/reliability.md", "reliability.json", reliability_page.SECTIONS),
        ("docs/pacs.md", "pacs.json", pacs_page.SECTIONS),
        ("docs/archive.md", "archive.json", archive_page.SECTIONS),
        ("docs/networks.md", "networks.json", networks_page.SECTIONS),
        ("docs/image.md", "image.json", image_page.SECTIONS),
        ("docs/operations.md", "models.json", models_page.SECTIONS),
    )
    for section in sections
}
"""(page, section) → the report in docs/reports, and what makes the section of it."""


# --- writing and checking


def written(page: str) -> tuple[str, str]:
    """A page as it is, and as its reports make it. Raises PageError."""
    text = _read(REPOSITORY / page)
    made = {name: of for (on, name), of in SECTIONS.items() if on == page}
    there = {found[2] for found in SECTION.finditer(text)}
    if lacking := set(made) - there:
        raise PageError(f"{page} lacks {', '.join(sorted(lacking))}")
    if unknown := there - set(made):
        raise PageError(f"nothing makes {', '.join(sorted(unknown))} of {page}")

    def section(found: re.Match[str]) -> str:
        opened, name, _, closed = found.groups()
        report, make = made[name]
        facts = json.loads(_read(REPOSITORY / "docs" / "reports" / report))
        return f"{opened}{make(facts)}{closed}"

    return text, SECTION.sub(section, text)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as exc:
        raise PageError(f"{file}: {exc.strerror}") from exc


def write() -> list[str]:
    """Write every page that is stale, and return their names."""
    stale = []
    for page in sorted({page for page, _ in SECTIONS}):
        old, new = written(page)
        if new != old:
            stale.append(page)
            (REPOSITORY / page).write_text(new, encoding="utf-8")
    return stale


def check() -> list[str]:
    """The names of the pages that are not what their reports give."""
    pages = sorted({page for page, _ in SECTIONS})
    return [page for page in pages if len(set(written(page))) > 1]


def main() -> None:
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit(f"usage: {sys.argv[0]} [--check]")
    checking = sys.argv[1:] == ["--check"]
    try:
        stale = check() if checking else write()
    except PageError as exc:
        sys.exit(str(exc))
    for page in stale:
        print(f"{page}: {'stale' if checking else 'written'}")
    sys.exit(bool(checking and stale))


if __name__ == "__main__":
    main()
