"""What the reading page takes in a real browser, and whether it shows what the service answers.

    .venv/bin/python benchmarks/reading_page.py

The real service with the shipped bundle, and Debian's Chromium beside it. First, many times over: a
new browser context, the page, one full-size file chosen as soon as there is where to choose it.
Then, round after round, N_FILES files of every kind: chosen on the page and left alone; posted
without a browser, as many at a time; chosen while somebody presses J all the time.

Published radiographs are read where there are any (``../shared/data``), and go nowhere but to this
service; elsewhere the repository's examples are. The report says which.

Does not: measure the service (``serving`` does), or what a network between the two would add.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from random import Random
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import httpx
import page as pages
from machine import REPOSITORY, commit, machine, versions
from measurement import Goal
from playwright.sync_api import Browser, Page, expect
from processes import ServerError, started
from questions import bad_files
from radiographs import SHARED

from factories import images
from factories.browser import (
    EXAMPLES,
    chromium,
    enlarged_jpeg,
    grey_16bit_png,
    grey_of,
    payloads,
    probability_text,
)
from factories.requests import radiograph_png

SERVE = (str(REPOSITORY / ".venv" / "bin" / "chestxray"), "serve")
REPORT = REPOSITORY / "docs" / "reports" / "reading_page.json"

KINDS = {
    "originals": 30,
    "small": 30,
    "adults": 15,
    "PNGs": 5,
    "16-bit PNGs": 4,
    "not chests": 6,
    "broken": 10,
}
N_FILES = sum(KINDS.values())
FULL_SIZE_PX = (1600, 1280)
SEED = 1

LOADS = 20
ROUNDS = 5
IN_FLIGHT = 4
"""Files that the page has under way at once: queue.js."""
PRESS_EVERY_MS = 120
WITHIN_MS = 120_000

FIRST_ANSWER_WITHIN_S = 3.0
NEXT_WITHIN_MS = 200.0
"""A response to a key is good up to here: web.dev's Interaction to Next Paint."""

PROBE = """
const seen = { chosen: null, answered: null, finished: null, frame: 0, task: 0, presses: [] };
window.seen = seen;
let pressed = null;
let before = performance.now();
const watching = () => seen.chosen !== null && seen.finished === null;

document.addEventListener("change", (event) => {
  if (event.target.id === "files") {
    seen.chosen = performance.now();
  }
}, true);
document.addEventListener("keydown", (event) => {
  pressed = event.timeStamp; // of the key, not of when the page came to it
}, true);
new MutationObserver((changes) => {
  if (watching() && document.getElementById("summary")?.textContent) {
    seen.finished = performance.now();
  }
  if (seen.answered === null && document.getElementById("label")?.textContent) {
    seen.answered = performance.now();
  }
  if (pressed !== null && changes.some((change) => change.attributeName === "aria-current")) {
    const since = pressed;
    pressed = null;
    requestAnimationFrame(() => seen.presses.push(performance.now() - since));
  }
}).observe(document, {
  subtree: true, childList: true, characterData: true, attributes: true,
  attributeFilter: ["aria-current"],
});
new PerformanceObserver((tasks) => {
  for (const { duration, startTime } of tasks.getEntries()) {
    if (watching() && startTime >= seen.chosen) {
      seen.task = Math.max(seen.task, duration);
    }
  }
}).observe({ type: "longtask" });
requestAnimationFrame(function next() {
  const now = performance.now();
  if (watching()) {
    seen.frame = Math.max(seen.frame, now - Math.max(before, seen.chosen));
  }
  before = now;
  requestAnimationFrame(next);
});
"""
"""Times in ms since the navigation began. A frame's gap is between two callbacks for a frame."""


@dataclass(frozen=True, slots=True)
class File:
    """What is chosen; its kind is one of KINDS."""

    kind: str
    content: bytes


@dataclass(slots=True)
class Told:
    """What the browser told of the page besides."""

    errors: list[str] = field(default_factory=list)
    """On the console, or thrown and not caught."""
    elsewhere: list[str] = field(default_factory=list)
    """Addresses of other hosts that were asked."""
    queries: Counter[str] = field(default_factory=Counter)
    """With which files were sent."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: ``n`` values, their median and the worst of them."""

    what: str
    n: int
    median: float
    worst: float
    unit: str


def figure(
    what: str, values: Sequence[float], unit: str, *, more_is_better: bool = False
) -> Figure:
    """The line of values, of which more is worse unless told otherwise."""
    worst = min(values) if more_is_better else max(values)
    return Figure(what, len(values), round(median(values), 4), round(worst, 4), unit)


# --- files


def mixed(data: Path | None) -> tuple[list[File], dict[str, str]]:
    """N_FILES files of all kinds, mixed, always the same; and what each kind is."""
    found = _published(data) if data is not None else _from_examples()
    small = found["small"][1][:8]
    found |= {
        "PNGs": ("small ones as PNG", [images.png(grey_of(file)) for file in small]),
        "16-bit PNGs": (
            "small ones as PNG of 16 bits",
            [grey_16bit_png(grey_of(file)) for file in small],
        ),
        "broken": ("broken or other files: text, GIF, cut off, empty, …", bad_files()),
    }
    files = [
        File(kind, content)
        for kind, n in KINDS.items()
        for content in islice(cycle(found[kind][1]), n)
    ]
    Random(SEED).shuffle(files)  # noqa: S311 - the same order each time
    return files, {kind: source for kind, (source, _) in found.items()}


Found = dict[str, tuple[str, list[bytes]]]


def _published(data: Path) -> Found:
    def some(kind: str, pattern: str) -> list[bytes]:
        paths = sorted(data.glob(pattern))
        step = max(len(paths) // KINDS[kind], 1)
        return [path.read_bytes() for path in paths[::step][: KINDS[kind]]]

    return {
        "originals": (
            "full-size published JPEGs",
            some("originals", "originals/*/*.jpeg"),
        ),
        "small": (
            "published JPEGs of 224 px",
            some("small", "chest_xray/train/*/*.jpeg"),
        ),
        "adults": ("published radiographs of adults", some("adults", "adults/*/*.*")),
        "not chests": ("photographs and bone X-rays", some("not chests", "not_chest/*/*.*")),
    }


def _from_examples() -> Found:
    examples = list(EXAMPLES.values())
    width, height = FULL_SIZE_PX
    return {
        "originals": (
            f"of this repository's examples, enlarged to {width} × {height} px",
            [enlarged_jpeg(file, width, height) for file in examples],
        ),
        "small": ("of this repository's examples", examples),
        "adults": ("of them again: there are no adults among them", examples),
        "not chests": ("drawn radiographs", [radiograph_png(seed) for seed in range(6)]),
    }


def _named(files: Sequence[File]) -> list[tuple[str, bytes]]:
    return [(f"{number:03}", file.content) for number, file in enumerate(files)]


# --- the browser


@contextmanager
def opened(browser: Browser, address: str, told: Told) -> Iterator[Page]:
    """The page in a context that knows nothing yet, as soon as files may be chosen."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    host = urlsplit(address).netloc

    def asked(url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme.startswith("http") and parts.netloc != host:
            told.elsewhere.append(url)
        if parts.path == "/predict_batch":
            told.queries[parts.query] += 1

    context.on("request", lambda request: asked(request.url))
    context.on("weberror", lambda error: told.errors.append(str(error.error)))
    context.on(
        "console",
        lambda message: told.errors.append(message.text) if message.type == "error" else None,
    )
    context.add_init_script(PROBE)
    try:
        page = context.new_page()
        # Modules have run by then, so the page hears of files.
        page.goto(address, wait_until="domcontentloaded")
        yield page
    finally:
        context.close()


def first_answer(browser: Browser, address: str, file: File, told: Told) -> tuple[float, float]:
    """Seconds from the start of the navigation, and from choosing ``file``, to its answer."""
    with opened(browser, address, told) as page:
        page.set_input_files("#files", payloads(_named([file])))
        expect(page.locator("#label")).not_to_be_empty(timeout=WITHIN_MS)
        seen = page.evaluate("() => window.seen")
    return seen["answered"] / 1000, (seen["answered"] - seen["chosen"]) / 1000


def all_answers(
    browser: Browser, address: str, files: Sequence[File], told: Told, *, pressing: bool
) -> tuple[dict[str, Any], list[str]]:
    """What PROBE saw while all were read, and what the list then says of each."""
    finished = "() => window.seen.finished !== null"
    with opened(browser, address, told) as page:
        page.set_input_files("#files", payloads(_named(files)), timeout=WITHIN_MS)
        while pressing and not page.evaluate(finished):
            page.keyboard.press("j")
            page.wait_for_timeout(PRESS_EVERY_MS)
        page.wait_for_function(finished, timeout=WITHIN_MS)
        states = page.locator("#readings .state").all_text_contents()
        return page.evaluate("() => window.seen"), states


# --- without it


def posted(address: str, files: Sequence[File], query: str) -> tuple[float, list[str]]:
    """Seconds for all files, IN_FLIGHT at a time; and what a list should say of each."""

    def ask(file: File) -> Mapping[str, Any]:
        upload = {"files": ("radiograph", file.content)}
        answer = client.post(f"/predict_batch?{query}", files=upload)
        element: Mapping[str, Any] = answer.raise_for_status().json()["results"][0]
        return element

    with (
        httpx.Client(base_url=address, timeout=60) as client,
        ThreadPoolExecutor(IN_FLIGHT) as pool,
    ):
        began = time.perf_counter()
        elements = list(pool.map(ask, files))
        return time.perf_counter() - began, [state(element) for element in elements]


def state(element: Mapping[str, Any]) -> str:
    """What the list says of an element of a batch: the words of words.js."""
    if "error" in element:
        return f"not judged: {element['error']['title'].lower()}"
    prediction = element["prediction"]
    probability = probability_text(prediction["probability"])
    return f"{prediction['label']} {probability}{', uncertain' if prediction['uncertain'] else ''}"


# --- both


def measure(
    address: str, browser: Browser, files: Sequence[File], *, loads: int, rounds: int
) -> tuple[list[Figure], list[Goal]]:
    """See the module."""
    told = Told()
    large = next(file for file in files if file.kind == "originals")
    firsts = [first_answer(browser, address, large, told) for _ in range(loads)]
    from_load_s, from_choice_s = zip(*firsts, strict=True)

    alone, pressed, without_s, right = [], [], [], []
    for _ in range(rounds):
        # What the browser cannot decode is sent with another query. The service refuses that too.
        left, shown = all_answers(browser, address, files, told, pressing=False)
        ((query, _),) = told.queries.most_common(1)
        took_s, wanted = posted(address, files, query)
        kept, shown_while_pressing = all_answers(browser, address, files, told, pressing=True)
        alone.append(left)
        pressed.append(kept)
        without_s.append(took_s)
        right += [
            sum(a == b for a, b in zip(seen, wanted, strict=True))
            for seen in (shown, shown_while_pressing)
        ]

    took_s = [(seen["finished"] - seen["chosen"]) / 1000 for seen in alone]
    per_s = [len(files) / s for s in took_s]
    share = [without / s for without, s in zip(without_s, took_s, strict=True)]
    next_ms = [ms for seen in pressed for ms in seen["presses"]]
    n = len(files)
    figures = [
        figure("start of the navigation to the first answer", from_load_s, "s"),
        figure("choice of the file to its answer", from_choice_s, "s"),
        figure(f"choice of {n} files to the last answer", took_s, "s"),
        figure("of these on the page", per_s, "files/s", more_is_better=True),
        figure(
            f"of these posted without a browser, {IN_FLIGHT} at a time",
            [n / s for s in without_s],
            "files/s",
            more_is_better=True,
        ),
        figure("the page's rate, to that without it", share, "×", more_is_better=True),
        figure("longest time without a frame", [seen["frame"] for seen in alone], "ms"),
        figure(
            "longest task (under 50 ms none is told of)", [seen["task"] for seen in alone], "ms"
        ),
        figure(
            "longest time without a frame, J pressed all the time",
            [seen["frame"] for seen in pressed],
            "ms",
        ),
        figure("longest task, J pressed all the time", [seen["task"] for seen in pressed], "ms"),
        figure("J to the frame with the next selected", next_ms, "ms"),
    ]
    goals = [
        Goal(
            "page load to the first answer, slowest", max(from_load_s), FIRST_ANSWER_WITHIN_S, "s"
        ),
        Goal(f"rows of {n} as the service answers, fewest", min(right), n, "rows", at_least=True),
        Goal("J to the next selected, slowest", max(next_ms), NEXT_WITHIN_MS, "ms"),
        Goal("errors on the console", len(told.errors), 0, "errors"),
        Goal("requests to other hosts", len(told.elsewhere), 0, "requests"),
    ]
    for line in [*told.errors[:10], *told.elsewhere[:10]]:
        print(line, file=sys.stderr)
    return figures, goals


def main() -> None:
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--out", type=Path, default=REPORT, help="JSON report to write [committed]")
    asked.add_argument("--rounds", type=int, default=ROUNDS, help=f"of all files [{ROUNDS}]")
    asked.add_argument(
        "--data",
        type=Path,
        default=SHARED if SHARED.is_dir() else None,
        help="published radiographs [../shared/data; where absent, the examples]",
    )
    given = asked.parse_args()
    began, before = time.monotonic(), machine()
    files, sources = mixed(given.data)
    quick = given.rounds < ROUNDS
    loads = 1 if quick else LOADS
    try:
        with started(SERVE, "/readyz") as server, chromium() as browser:
            used = {"Chromium": browser.version, "Playwright": version("playwright")}
            figures, goals = measure(
                server.address, browser, files, loads=loads, rounds=given.rounds
            )
    except ServerError as exc:
        sys.exit(f"reading_page: {exc}")
    sizes = {kind: [len(f.content) for f in files if f.kind == kind] for kind in KINDS}
    report = {
        "date": datetime.now(UTC).date().isoformat(),
        "command": f".venv/bin/python {shlex.join(sys.argv)}",
        "commit": commit(),
        "quick": quick,
        "rounds": given.rounds,
        "took_s": round(time.monotonic() - began),
        "machine": before,
        "versions": versions() | used,
        "files": {
            kind: {"n": len(of), "source": sources[kind], "mean_bytes": sum(of) / len(of)}
            for kind, of in sizes.items()
        },
        "goals": [asdict(goal) | {"value": round(goal.value, 4)} for goal in goals],
        "figures": [asdict(line) for line in figures],
    }
    given.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    if given.out == REPORT:
        pages.write()
    print(pages.measured(report))
    print(pages.goals(report))
    sys.exit(not all(goal.met for goal in goals))


if __name__ == "__main__":
    main()
