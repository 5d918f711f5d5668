"""Ten times the load: only 200 and 429, no connection lost, and a Retry-After that is honest.

``connections`` are ten times the places that the service has (threads and queue). First they all
ask again as soon as they are answered, which nobody should do, by wrk. Then they all do as they are
told: whoever gets a 429 waits for as long as ``Retry-After`` says, and a random part more. At last
one client asks into a full queue, waits as told, and must get in at once.

Does not: run by itself (``faults`` runs it).
"""

# ruff: noqa: S311 - what is asked, and when, is drawn from a seed

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from machine import CORES
from questions import Question, questions
from reliability import serving

from factories.exchanges import BOUNDARY, HOST

TIMES = 10
QUEUE_SIZE = 64  # the default
SCRIPT = Path(__file__).parent / "overload.lua"
N_FULL_QUEUES = 20
FEW = 4 * CORES
"""Connections that keep the service busy and no more, to compare with."""
GIVE_UP_S = 120.0


class WrkMissingError(Exception):
    """wrk is not installed (Debian: apt-get install wrk)."""


@dataclass
class Herd:
    """What clients saw that ask at once."""

    statuses: Counter[str] = field(default_factory=Counter)
    broken: int = 0
    told_s: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    got_in_s: list[float] = field(default_factory=list)


def measured(port: int, seconds: float) -> dict[str, Any]:
    """All of it, with small files and with large ones."""
    connections = TIMES * (CORES + QUEUE_SIZE)
    by_kind = {question.kind: question for question in questions()}
    closed = {}
    with serving(port) as server:
        for kind in ("small", "large"):
            usual = _closed_loop(port, by_kind[kind], FEW, seconds)
            closed[kind] = _closed_loop(port, by_kind[kind], connections, seconds)
            closed[kind]["answered_per_s"] = round(_answered_per_s(closed[kind]), 1)
            closed[kind]["answered_per_s_of_few"] = round(_answered_per_s(usual), 1)
        begun = time.monotonic()
        patient = asyncio.run(_herd(port, by_kind["small"].request, connections, patient=True))
        all_in_s = time.monotonic() - begun
        single = [
            _after_a_full_queue(port, by_kind["small"], connections) for _ in range(N_FULL_QUEUES)
        ]
        memory_mb, errors = server.peak_mb(), server.errors_logged()
    return {
        "held": not errors
        and all(_only_200_and_429(load) for load in closed.values())
        and set(patient.statuses) <= {"200", "429"}
        and (patient.broken, len(patient.got_in_s)) == (0, connections)
        and all(each["then"] == 200 for each in single),
        "connections": connections,
        "few": FEW,
        "places": CORES + QUEUE_SIZE,
        "asking_again_at_once": closed,
        "waiting_as_told": {
            "statuses": dict(patient.statuses),
            "broken": patient.broken,
            "got_in": len(patient.got_in_s),
            "all_in_s": round(all_in_s, 1),
            "most_attempts": max(patient.attempts),
            "longest_retry_after_s": max(patient.told_s),
        },
        "after_a_full_queue": {
            "n": len(single),
            "got_in_at_once": sum(each["then"] == 200 for each in single),
            "retry_after_s": sorted({each["retry_after_s"] for each in single}),
            "queue_empty_after_s": round(max(each["empty_after_s"] for each in single), 2),
        },
        "memory_mb": round(memory_mb, 1),
        "errors_logged": errors[:20],
    }


def _closed_loop(port: int, question: Question, connections: int, seconds: float) -> dict[str, Any]:
    wrk = shutil.which("wrk")
    if wrk is None:
        raise WrkMissingError
    target, body = re.fullmatch(
        rb"POST (\S+) .*?\r\n\r\n(.*)", question.request, re.DOTALL
    ).groups()  # type: ignore[union-attr]
    with tempfile.NamedTemporaryFile() as file:
        file.write(body)
        file.flush()
        done = subprocess.run(
            [
                *(wrk, "--threads", "1", "--connections", str(connections), "--timeout", "60s"),
                *("--duration", f"{max(1, round(seconds))}s", "--script", str(SCRIPT)),
                *(f"http://{HOST}:{port}", "--", target.decode(), file.name, BOUNDARY),
            ],
            capture_output=True,
            text=True,
            check=True,
        )
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    return json.loads(line)


def _answered_per_s(load: dict[str, Any]) -> float:
    return load["statuses"].get("200", 0) / load["seconds"]


def _only_200_and_429(load: dict[str, Any]) -> bool:
    broken = ("without_retry_after", "connect_errors", "read_errors", "write_errors", "timeouts")
    return set(load["statuses"]) <= {"200", "429"} and not any(load[name] for name in broken)


def _after_a_full_queue(port: int, question: Question, connections: int) -> dict[str, Any]:
    """Fill the queue, be sent away, come back when told."""
    told = None
    while told is None:  # now and then it is full for too short a time to be met
        told = asyncio.run(_sent_away(port, question.request, connections))
    return told


async def _sent_away(port: int, request: bytes, connections: int) -> dict[str, Any] | None:
    """What the one client among all saw; None where it got in while the queue was being filled."""
    filling = asyncio.ensure_future(_herd(port, request, connections, patient=False))
    one, again = Herd(), Herd()
    while not (one.told_s or filling.done()):
        await _client(port, request, Random(0), one, patient=False)
    if one.told_s:
        await asyncio.sleep(one.told_s[0])
        await _client(port, request, Random(0), again, patient=False)
    herd = await filling
    if not one.told_s:
        return None
    return {
        "retry_after_s": one.told_s[0],
        "then": int(next(iter(again.statuses), 0)),
        "empty_after_s": max(herd.got_in_s),
    }


async def _herd(port: int, request: bytes, n: int, *, patient: bool) -> Herd:
    """``n`` clients at once, each with one question."""
    herd = Herd()
    await asyncio.gather(
        *(_client(port, request, Random(number), herd, patient=patient) for number in range(n))
    )
    return herd


async def _client(port: int, request: bytes, rng: Random, herd: Herd, *, patient: bool) -> None:
    begun = time.monotonic()
    attempts = 0
    try:
        reader, writer = await asyncio.open_connection(HOST, port)
        while time.monotonic() - begun < GIVE_UP_S:
            attempts += 1
            writer.write(request)
            await writer.drain()
            status, retry_after_s = await _answer(reader)
            herd.statuses[str(status)] += 1
            if status == 200:
                herd.got_in_s.append(time.monotonic() - begun)
                herd.attempts.append(attempts)
                break
            herd.told_s.append(retry_after_s)
            if not patient:
                break
            await asyncio.sleep(retry_after_s * (1 + rng.random()))
        writer.close()
        await writer.wait_closed()
    except (OSError, asyncio.IncompleteReadError):
        herd.broken += 1


async def _answer(reader: asyncio.StreamReader) -> tuple[int, int]:
    """The status and Retry-After (0 where there is none) of the next answer, read to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    length = re.search(rb"\r\ncontent-length: (\d+)", head)
    await reader.readexactly(int(length[1]) if length else 0)
    told = re.search(rb"\r\nretry-after: (\d+)\r\n", head)
    return status, int(told[1]) if told else 0
