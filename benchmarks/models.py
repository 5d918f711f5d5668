"""What a second bundle and a shadow cost, and whether a bundle is replaced without anyone noticing.

    .venv/bin/python benchmarks/models.py

*cost*: the real server with one bundle, with two, and with a shadow, in turns, under wrk: with all
cores busy, and with one client alone. *replaced*: two bundles and a shadow under load, while the
default is replaced by another again and again; every answer is held against what the library says
with the bundle that the answer names.

The bundles have the shipped weights, and other calibrations, so that they answer otherwise and cost
the same. Exits with 1 where a request was lost or an answer was wrong.

Does not: measure other loads (``serving`` does) or other faults (``faults`` does).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from load import write_bodies
from machine import REPOSITORY
from measurement import Row, median_of
from processes import Server, started
from radiographs import SHARED, Radiographs, radiographs
from reliability import arguments, serving, write_section
from serving import AT, SERVE, loaded

from chestxray.assessment import Registry, assess
from chestxray.inference import BUNDLED, Predictor, read_bundle, write_bundle
from factories.exchanges import Connection, upload
from factories.oracles import parsed_json

PORT = 8560
REPORT = REPOSITORY / "docs" / "reports" / "models.json"
CLIENTS = 6
REPLACE_EVERY_S = 1.5
N_FILES = 12

ONE, SECOND, BOTH = "one bundle", "two bundles, the second asked", "two bundles, the first asked"
SHADOW_TENTH, SHADOW = "a shadow of a tenth", "a shadow of all"
MODEL = "/predict?model=second"


def main() -> None:
    asked = arguments(__doc__, port=PORT)
    asked.set_defaults(out=REPORT)
    asked.add_argument("--rounds", type=int, default=5, help="of the cost [5]")
    asked.add_argument("--seconds", type=float, default=5, help="for each case in a round [5]")
    asked.add_argument("--minutes", type=float, default=2, help="of replacing, for each [2]")
    given = asked.parse_args()
    held = True
    data = SHARED if SHARED.is_dir() else None
    with tempfile.TemporaryDirectory() as folder, radiographs(data) as (files, *_):
        bundles, seconds = Bundles(Path(folder)), given.minutes * 60
        sections = {
            "cost": lambda: cost(bundles, files, rounds=given.rounds, seconds=given.seconds),
            "replaced in one process": lambda: replaced(bundles, files, given.port, 1, seconds),
            "replaced in two workers": lambda: replaced(bundles, files, given.port, 2, seconds),
        }
        for name, section in sections.items():
            begun = time.perf_counter()
            facts = section()
            write_section(given.out, name, facts, took_s=time.perf_counter() - begun)
            print(name, json.dumps(facts, indent=1, ensure_ascii=False))
            held = held and facts.get("held", True)
    sys.exit(not held)


class Bundles:
    """The shipped bundle, and others of its weights that answer otherwise."""

    def __init__(self, folder: Path) -> None:
        shipped = read_bundle(BUNDLED)
        self.folder = folder
        self.names = ("first", "again", "second", "shadow")
        for step, name in enumerate(self.names):
            calibration = shipped.manifest.calibration
            moved = calibration.model_copy(update={"bias": calibration.bias + 0.3 * step})
            facts = {"name": name, "calibration": moved}
            write_bundle(folder / name, shipped.manifest.model_copy(update=facts), shipped.model)

    def option(self, *names: str) -> str:
        """What CHESTXRAY_BUNDLE says of them."""
        return ",".join(f"{name}={self.folder / name}" for name in names)


# --- cost -----------------------------------------------------------------------------------------


def cost(bundles: Bundles, files: Radiographs, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Requests a second, CPU time and memory of each case; medians of rounds in turns."""
    environments = {
        ONE: {"CHESTXRAY_BUNDLE": bundles.option("first")},
        BOTH: {"CHESTXRAY_BUNDLE": bundles.option("first", "second")},
        SHADOW_TENTH: _shadowed(bundles, 0.1),
        SHADOW: _shadowed(bundles, 1.0),
    }
    rows: dict[tuple[str, int], list[Row]] = defaultdict(list)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bodies = write_bodies(files.contents(), folder / "bodies")
        servers = {
            case: stack.enter_context(started(SERVE, "/readyz", environment))
            for case, environment in environments.items()
        }
        idle_mb = {case: server.memory_mb() for case, server in servers.items()}
        for _ in range(rounds):
            for connections in (1, AT):
                sent = (files.kind, bodies, connections, seconds)
                for case, server in servers.items():
                    skipped = _skipped(server)
                    row = loaded(server, case, *sent)
                    followed = 1 - (_skipped(server) - skipped) / row.n
                    note = f"{followed:.0%} followed" if case == SHADOW else ""
                    rows[case, connections].append(replace(row, benchmark="models", note=note))
                row = loaded(servers[BOTH], SECOND, *sent, MODEL)
                rows[SECOND, connections].append(replace(row, benchmark="models", note=""))
    found = [median_of(of) for of in rows.values()]
    return {
        "on": files.kind,
        "rows": [asdict(row) for row in found],
        "memory_when_ready_mb": idle_mb,
    }


def _shadowed(bundles: Bundles, share: float) -> dict[str, str]:
    return {
        "CHESTXRAY_BUNDLE": bundles.option("first"),
        "CHESTXRAY_SHADOW": bundles.option("shadow"),
        "CHESTXRAY_SHADOW_SHARE": str(share),
    }


def _skipped(server: Server) -> float:
    return _metric(server.address, "chestxray_shadow_skipped_total")


def _metric(address: str, name: str) -> float:
    from urllib.request import urlopen  # noqa: PLC0415

    with urlopen(f"{address}/metrics", timeout=30) as answer:  # noqa: S310 - our own address
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{name} "))


# --- replaced -------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What all clients saw."""

    outcomes: Counter[str] = field(default_factory=Counter)
    bundles: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


Expected = dict[tuple[int, str], float]
"""The probability of a file, by its number and the bundle's SHA-256."""


def replaced(
    bundles: Bundles, files: Radiographs, port: int, workers: int, seconds: float
) -> dict[str, Any]:
    """``seconds`` of clients that know every right answer, while the default is replaced."""
    contents = files.contents()[:N_FILES]
    predictors = {name: Predictor.load(bundles.folder / name) for name in bundles.names}
    expected = _expected(predictors, contents)
    default = bundles.folder / "default"
    _point(default, bundles.folder / "first")
    tally, ending = Tally(), threading.Event()
    asked = (f"default={default}", bundles.option("second"))
    shadow = {"shadow": bundles.option("shadow"), "shadow_share": 0.2}
    reloads = 0
    with serving(port, bundles=asked, workers=workers, **shadow) as server:
        before_mb = max(server.memory_mb().values())
        with ThreadPoolExecutor(CLIENTS) as pool:
            clients = [
                pool.submit(_ask, port, n, contents, expected, ending, tally)
                for n in range(CLIENTS)
            ]
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(REPLACE_EVERY_S)
                reloads += 1
                _point(default, bundles.folder / ("again" if reloads % 2 else "first"))
                os.kill(server.process.pid, signal.SIGHUP)
            ending.set()
            for client in clients:
                client.result()
        address = f"http://127.0.0.1:{port}"
        replacements = _metric(address, 'chestxray_bundle_reloads_total{outcome="replaced"}')
        failed = _metric(address, 'chestxray_bundle_reloads_total{outcome="failed"}')
        facts = {
            "seconds": seconds,
            "workers": workers,
            "signals": reloads,
            "replacements": replacements,
            "failed_replacements": failed,
            "n": tally.outcomes.total(),
            "outcomes": dict(tally.outcomes),
            "answers_by_bundle": {
                name: tally.bundles[of.bundle_sha256] for name, of in predictors.items()
            },
            "wrong_answers": len(tally.wrong),
            "lost_requests": len(tally.lost),
            "slowest_s": round(tally.slowest_s, 3),
            "memory_before_mb": before_mb,
            "memory_peak_mb": server.peak_mb(),
            "errors_logged": len(server.errors_logged()),
        }
        code, _ = server.end()
    facts["exit_code"] = code
    both_answered = all(facts["answers_by_bundle"][name] for name in ("first", "again", "second"))
    nothing_shown = not facts["answers_by_bundle"]["shadow"]
    faults = (tally.wrong, tally.lost, failed, facts["errors_logged"], code)
    facts["held"] = both_answered and nothing_shown and not any(faults)
    return facts


def _expected(predictors: dict[str, Predictor], contents: Sequence[bytes]) -> Expected:
    registry = Registry(predictors)
    return {
        (number, assessment.assessor.predictor.bundle_sha256): assessment.answer[1].probability
        for number, data in enumerate(contents)
        for assessment in assess(data, registry.assessors())
    }


def _point(link: Path, folder: Path) -> None:
    """Make a symlink lead to another folder, at once."""
    beside = link.with_name(f"{link.name}.new")
    beside.symlink_to(folder)
    beside.replace(link)


def _ask(
    port: int,
    client: int,
    contents: Sequence[bytes],
    expected: Expected,
    ending: threading.Event,
    tally: Tally,
) -> None:
    """Ask the default, and every third time the second bundle, over one connection."""
    at = client
    with Connection(port) as connection:
        while not ending.is_set():
            at += 1
            number = at % len(contents)
            target = MODEL if at % 3 == 0 else "/predict"
            begun = time.monotonic()
            try:
                answer = connection.ask(upload(target, [("a", contents[number])]))
            except OSError as exc:
                with tally.lock:
                    tally.lost.append(repr(exc))
                return
            took_s = time.monotonic() - begun
            told = parsed_json(answer.body)
            with tally.lock:
                tally.slowest_s = max(tally.slowest_s, took_s)
                tally.outcomes[str(answer.status)] += 1
                if answer.status != 200:
                    tally.lost.append(f"{answer.status} {told.get('code')}")
                    continue
                sha256 = told["model"]["bundle_sha256"]
                tally.bundles[sha256] += 1
                name = "second" if target == MODEL else "default"
                right = told["probability"] == expected.get((number, sha256))
                if not right or told["model"]["name"] != name:
                    tally.wrong.append(f"{number} {told['model']} {told['probability']}")


if __name__ == "__main__":
    main()
