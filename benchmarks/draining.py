"""SIGTERM under load: nothing that was accepted is dropped, and the exit code is 0.

Does not: run by itself (``faults`` runs it).
"""

# ruff: noqa: S311 - what is asked, and when, is drawn from a seed

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from random import Random
from typing import Any

from questions import Question, answered, chosen, questions
from reliability import Server, serving

from factories.exchanges import Connection

CLIENTS = 16
LOADED_FOR_S = (1.0, 2.5)
SHARES = {"small": 60, "heatmap": 20, "large": 10, "bad": 5, "batch": 5}

ACCEPTED_AFTER_S = 0.25
"""A request whose last byte was sent so long before the signal has its place; of a later one the
service may not have heard."""

AFTERWARDS_S = 3.0


@dataclass(frozen=True, slots=True)
class Asked:
    """When the last byte of a request was sent (or was to be), when the answer came, and which."""

    sent: float
    back: float
    outcome: str


def measured(port: int, n: int) -> dict[str, Any]:
    """``n`` signals to one worker and ``n`` to two."""
    runs = {str(workers): _signals(port, workers, n) for workers in (1, 2)}
    return {"held": all(run["held"] for run in runs.values()), "clients": CLIENTS, "workers": runs}


def _signals(port: int, workers: int, n: int) -> dict[str, Any]:
    before, around, after = Counter[str](), Counter[str](), Counter[str]()
    exit_codes, took_s, in_flight = [], [], 0
    for number in range(n):
        with serving(port, workers=workers) as server:
            signalled, asked, exit_code, end_s = _signal(server, number)
        exit_codes.append(exit_code)
        took_s.append(end_s)
        for each in asked:
            in_flight += each.sent <= signalled < each.back
            if each.sent < signalled - ACCEPTED_AFTER_S:
                before[each.outcome] += 1
            elif each.sent <= signalled:
                around[each.outcome] += 1
            else:
                after[each.outcome] += 1
    return {
        "held": in_flight >= n
        and set(before) <= {"right", "429"}
        and set(around) <= {"right", "429", "503"}
        and set(after) <= {"right", "429", "503", "broken", "refused"}
        and set(exit_codes) == {0},
        "signals": n,
        "accepted_before": dict(before),
        "just_before": dict(around),
        "of_these_in_flight": in_flight,
        "after": dict(after),
        "exit_codes": exit_codes,
        "slowest_end_s": round(max(took_s), 2),
    }


def _signal(server: Server, number: int) -> tuple[float, list[Asked], int, float]:
    rng = Random(number)
    known = answered(questions(large_side_px=1200), server.port)
    asked: list[Asked] = []
    ending = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        running = [
            pool.submit(_ask, server.port, known, Random(f"{number} {client}"), ending, asked)
            for client in range(CLIENTS)
        ]
        time.sleep(rng.uniform(*LOADED_FOR_S))
        signalled = time.monotonic()
        exit_code, took_s = server.end()
        ending.wait(AFTERWARDS_S - took_s)
        ending.set()
        for each in running:
            each.result()
    return signalled, asked, exit_code, took_s


def _ask(
    port: int, known: list[Question], rng: Random, ending: threading.Event, asked: list[Asked]
) -> None:
    """Ask until nobody listens any more."""
    with Connection(port) as connection:
        while not ending.is_set():
            question = chosen(known, SHARES, rng)
            sent = time.monotonic()
            try:
                connection.send(question.request)
                sent = time.monotonic()
                answer = connection.answer()
                outcome = str(answer.status)
                if answer.status not in {429, 503}:
                    outcome = "right" if question.is_answered_by(answer) else f"wrong: {outcome}"
            except ConnectionRefusedError:
                outcome = "refused"
            except (OSError, HTTPException):
                outcome = "broken"
            asked.append(Asked(sent, time.monotonic(), outcome))
            if outcome == "refused":
                return
