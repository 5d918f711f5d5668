"""Many requests of every kind, and what the workers' memory does meanwhile.

    .venv/bin/python benchmarks/soak.py --n 20000

Radiographs small and large, of 8 and of 16 bits, heatmaps, batches, bad files, and clients that go
away. The resident memory of every worker is read once a second. *Growth* is from the mean of the
WINDOW_S after the warm-up to the mean of the last WINDOW_S, of the worker that grew the most.

Writes docs/images/soak.png beside the report. Exits with 1 where anything did not hold.

Does not: disturb (``faults`` does) or measure speed (``serving`` does).
"""

# ruff: noqa: S311 - what is asked is drawn from a seed

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from random import Random
from typing import Any

import matplotlib as mpl
from machine import REPOSITORY
from questions import Question, answered, chosen, questions
from reliability import Server, arguments, serving, write_section

from factories.exchanges import Connection

PORT = 8560
IMAGE = REPOSITORY / "docs" / "images" / "soak.png"

WORKERS = 2
CLIENTS = 6
SHARES = {"small": 50, "heatmap": 14, "large": 12, "16 bit": 6, "bad": 14, "batch": 4}
HANG_UPS = 0.04

EVERY_S = 1.0
WINDOW_S = 15.0
WARM_UP = 1000
MAX_GROWTH_MB = 30.0

Sample = tuple[float, int, dict[int, float]]
"""Seconds since the start, requests so far, memory of each worker in MB."""


class Count:
    """Requests so far, and what became of them; used by all threads."""

    def __init__(self) -> None:
        self.n = 0
        self.outcomes = Counter[str]()
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            self.n += 1
            return self.n

    def add(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1


def main() -> None:
    asked = arguments(__doc__, port=PORT)
    asked.add_argument("--n", type=int, default=20_000, help="requests [20000]")
    asked.add_argument("--warm-up", type=int, default=WARM_UP, help=f"requests [{WARM_UP}]")
    asked.add_argument("--seed", type=int, default=1, help="of what is asked [1]")
    asked.add_argument("--image", type=Path, default=IMAGE, help="plot to write [committed]")
    given = asked.parse_args()
    begun = time.perf_counter()
    facts = soak(given.port, given.n, given.warm_up, given.seed)
    write_section(given.out, "soak", facts, took_s=time.perf_counter() - begun)
    plot(facts, given.image)
    print(json.dumps({k: v for k, v in facts.items() if k != "samples"}, indent=1))
    sys.exit(not facts["held"])


def soak(port: int, n: int, warm_up: int, seed: int) -> dict[str, Any]:
    """``n`` requests; see the module."""
    count = Count()
    samples: list[Sample] = []
    ended = threading.Event()
    with serving(port, workers=WORKERS) as server:
        known = answered(questions(), port)
        with ThreadPoolExecutor(CLIENTS + 1) as pool:
            watching = pool.submit(_watch, server, count, samples, ended)
            clients = [
                pool.submit(_ask, port, known, Random(f"{seed} {number}"), n, count)
                for number in range(CLIENTS)
            ]
            for client in clients:
                client.result()
            ended.set()
            watching.result()
        errors = server.errors_logged()
        exit_code, _ = server.end()
    growth_mb = {pid: growth(samples, pid, warm_up) for pid in samples[-1][2]}
    wrong = {outcome: k for outcome, k in count.outcomes.items() if "wrong" in outcome}
    return {
        "held": max(growth_mb.values()) < MAX_GROWTH_MB
        and not (wrong or errors or exit_code or count.outcomes["broken"])
        and len(growth_mb) == WORKERS,
        "n": n,
        "workers": WORKERS,
        "warm_up": warm_up,
        "outcomes": dict(count.outcomes.most_common()),
        "wrong": wrong,
        "seconds": round(samples[-1][0], 1),
        "growth_mb": [round(mb, 1) for mb in growth_mb.values()],
        "most_mb": round(max(max(memory.values()) for _, _, memory in samples), 1),
        "errors_logged": errors[:20],
        "exit_code": exit_code,
        "samples": [
            [round(s, 1), requests, *(round(memory.get(pid, 0), 1) for pid in growth_mb)]
            for s, requests, memory in samples
        ],
    }


def growth(samples: Sequence[Sample], pid: int, warm_up: int) -> float:
    """MB from the mean after ``warm_up`` requests to the mean at the end, each over WINDOW_S."""
    warm = [(s, memory[pid]) for s, n, memory in samples if n >= warm_up and pid in memory]
    first_s, last_s = warm[0][0], warm[-1][0]
    first = [mb for s, mb in warm if s <= first_s + WINDOW_S]
    last = [mb for s, mb in warm if s >= last_s - WINDOW_S]
    return sum(last) / len(last) - sum(first) / len(first)


def plot(facts: dict[str, Any], image: Path) -> None:
    """The memory of every worker over the requests."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - after the choice of where to draw

    figure, axes = plt.subplots(figsize=(8, 3.5), layout="constrained")
    _, requests, *workers = zip(*facts["samples"], strict=True)
    for number, memory_mb in enumerate(workers, 1):
        axes.plot(requests, memory_mb, label=f"worker {number}")
    axes.axvline(facts["warm_up"], color="grey", linestyle=":", label="end of the warm-up")
    axes.set(xlabel="requests", ylabel="resident memory, MB", ylim=(0, 1.2 * facts["most_mb"]))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    image.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(image, dpi=110)
    plt.close(figure)


def _watch(server: Server, count: Count, samples: list[Sample], ended: threading.Event) -> None:
    begun = time.monotonic()
    last = False
    while not last:
        last = ended.wait(EVERY_S)
        samples.append((time.monotonic() - begun, count.n, server.memory_mb()))


def _ask(port: int, known: list[Question], rng: Random, n: int, count: Count) -> None:
    with Connection(port) as connection:
        while count.next() <= n:
            question = chosen(known, SHARES, rng)
            try:
                if rng.random() < HANG_UPS:
                    connection.send(question.request)
                    connection.close()
                    count.add("hung up before reading")
                    continue
                answer = connection.ask(question.request)
            except (OSError, HTTPException):
                count.add("broken")
                continue
            right = question.is_answered_by(answer)
            count.add(f"{question.kind}: {answer.status}{'' if right else ' wrong'}")


if __name__ == "__main__":
    main()
