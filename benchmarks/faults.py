"""What the service does under faults, under ten times its load, and when it is told to end.

    .venv/bin/python benchmarks/faults.py --minutes 5

Under *faults*, a server of two workers is asked by clients that know what it must answer, while a
worker is killed every few seconds and other clients send slowly, break off, hang up or stall.
*overload* and *draining* have programs of their own; then one bad file among 64, and 200 heatmaps
asked for at once against the same asked for one after the other.

Exits with 1 where anything did not hold.

Does not: measure speed (``serving`` does).
"""

# ruff: noqa: S311 - what is asked, and when, is drawn from a seed

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from random import Random
from typing import Any

import draining
import overload
from questions import EXAMPLES, Question, answered, batch_of_one_bad, chosen, questions
from reliability import Server, arguments, serving, write_section

from factories.exchanges import HOST, Answer, Connection, exchange, upload
from factories.oracles import outcome_of_answer, parsed_json

PORT = 8520

SHARES = {"small": 40, "heatmap": 15, "large": 12, "16 bit": 8, "bad": 20, "batch": 5}
CLIENTS = 6
DISTURBERS = 2
"""Threads for each kind of disturbance."""

KILL_EVERY_S = 4.0
AROUND_A_KILL_S = 1.0
"""A connection that breaks so soon after a kill was the killed worker's."""

SLOWLY_S = 3.0
HEAD_STALLS_S = 22.0
"""More than the 20 s that a service waits for the rest of a head or of a body."""

N_HEATMAPS = 200
N_IN_BATCH = 64


def main() -> None:
    asked = arguments(__doc__, port=PORT)
    asked.add_argument("--minutes", type=float, default=5, help="of faults [5]")
    asked.add_argument("--overload-s", type=float, default=30, help="for each kind of load [30]")
    asked.add_argument("--drains", type=int, default=10, help="SIGTERMs for each [10]")
    asked.add_argument("--seed", type=int, default=1, help="of what is asked and killed [1]")
    given = asked.parse_args()
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "faults": lambda: faults(given.port, given.minutes * 60, given.seed),
        "overload": lambda: overload.measured(given.port, given.overload_s),
        "draining": lambda: draining.measured(given.port, given.drains),
        "one_bad_file": lambda: one_bad_file(given.port),
        "heatmaps": lambda: heatmaps(given.port),
    }
    held = True
    for name, section in sections.items():
        begun = time.perf_counter()
        facts = section()
        write_section(given.out, name, facts, took_s=time.perf_counter() - begun)
        print(name, json.dumps(facts, indent=1, ensure_ascii=False))
        held = held and facts["held"]
    sys.exit(not held)


# --- faults ---------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What all clients saw; every method may be called by any thread."""

    outcomes: Counter[str] = field(default_factory=Counter)
    disturbances: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    broken: list[tuple[float, float, str]] = field(default_factory=list)
    """Connections that broke: when the worker was last known to live, when it broke, and how."""
    took_s: list[float] = field(default_factory=list)
    kills: list[tuple[float, float]] = field(default_factory=list)
    """The moments before and after each."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answered(self, question: Question, answer: Answer, took_s: float) -> None:
        outcome = _outcome(answer)
        with self.lock:
            self.outcomes[f"{question.kind}: {outcome}"] += 1
            self.took_s.append(took_s)
            if answer.status != 429 and not question.is_answered_by(answer):
                self.wrong.append(f"{question.kind}: {outcome}")

    def disturbed(self, what: str) -> None:
        with self.lock:
            self.disturbances[what] += 1

    def broke(self, begun: float, exc: Exception) -> None:
        with self.lock:
            self.broken.append((begun, time.monotonic(), repr(exc)))

    def broken_elsewhere(self) -> list[str]:
        """Connections that broke where no worker had just been killed."""
        return [
            told
            for alive, broke, told in self.broken
            if not any(
                alive <= after and before <= broke <= after + AROUND_A_KILL_S
                for before, after in self.kills
            )
        ]


Client = Callable[[int, list[Question], Random, threading.Event, Tally], None]


def faults(port: int, seconds: float, seed: int) -> dict[str, Any]:
    """``seconds`` of clients that ask, clients that disturb, and kills."""
    tally, ending = Tally(), threading.Event()
    clients: list[Client] = [asking] * CLIENTS
    for client in (hanging_up, breaking_off, sending_slowly, stalling_body, stalling_head):
        clients += [client] * DISTURBERS
    with serving(port, workers=2) as server:
        known = answered(questions(), port)
        with ThreadPoolExecutor(len(clients) + 1) as pool:
            running = [
                pool.submit(client, port, known, Random(f"{seed} {number}"), ending, tally)
                for number, client in enumerate(clients)
            ]
            running.append(pool.submit(_kill, server, Random(seed), ending, tally))
            ending.wait(seconds)
            ending.set()
            for each in running:
                each.result()
        memory_mb, errors = server.memory_mb(), server.errors_logged()
        afterwards = Tally()
        asking(port, known, Random(seed), ending, afterwards, each_once=True)
        exit_code, _ = server.end()
    times = sorted(tally.took_s)
    elsewhere = tally.broken_elsewhere()
    statuses = Counter[str]()
    for outcome, n in tally.outcomes.items():
        statuses[outcome.split(": ")[1].split(" ")[0]] += n
    return {
        "held": not (tally.wrong or elsewhere or errors or afterwards.wrong or exit_code)
        and all(int(status) < 500 for status in statuses),
        "seconds": seconds,
        "workers": 2,
        "n": len(times),
        "statuses": dict(sorted(statuses.items())),
        "outcomes": dict(tally.outcomes.most_common()),
        "n_wrong_answers": len(tally.wrong) + len(afterwards.wrong),
        "wrong": tally.wrong[:20],
        "kills": len(tally.kills),
        "broken_at_a_kill": len(tally.broken) - len(elsewhere),
        "broken_elsewhere": len(elsewhere),
        "broken": elsewhere[:20],
        "disturbances": dict(tally.disturbances.most_common()),
        "p50_ms": round(1000 * times[len(times) // 2]),
        "p99_ms": round(1000 * times[len(times) * 99 // 100]),
        "slowest_ms": round(1000 * times[-1]),
        "memory_mb": [round(mb, 1) for mb in memory_mb.values()],
        "errors_logged": errors[:20],
        "exit_code": exit_code,
    }


def _kill(server: Server, rng: Random, ending: threading.Event, tally: Tally) -> None:
    while not ending.wait(KILL_EVERY_S):
        if len(server.workers()) == 2:  # else the one that lives would be the only one
            before = time.monotonic()
            server.kill_a_worker(rng.randrange(2))
            with tally.lock:
                tally.kills.append((before, time.monotonic()))


def asking(
    port: int,
    known: list[Question],
    rng: Random,
    ending: threading.Event,
    tally: Tally,
    *,
    each_once: bool = False,
) -> None:
    """Ask one question after the other until the end, or each once."""
    once = iter(known)
    with Connection(port) as connection:
        alive = time.monotonic()  # when its worker last was
        while each_once or not ending.is_set():
            question = next(once, None) if each_once else chosen(known, SHARES, rng)
            if question is None:
                return
            begun = time.monotonic()
            try:
                answer = connection.ask(question.request)
            except (OSError, HTTPException) as exc:
                tally.broke(alive, exc)
            else:
                tally.answered(question, answer, time.monotonic() - begun)
            alive = time.monotonic()


@contextmanager
def _raw(port: int) -> Iterator[socket.socket]:
    with socket.create_connection((HOST, port), timeout=30) as connection:
        yield connection


def hanging_up(
    port: int, known: list[Question], rng: Random, ending: threading.Event, tally: Tally
) -> None:
    """Go away in the middle of a body, or before reading; half of them with a reset."""
    while not ending.wait(rng.uniform(0, 0.3)):
        request = chosen(known, SHARES, rng).request
        whole = rng.random() < 0.5
        reset = rng.random() < 0.5
        with suppress(OSError), _raw(port) as connection:
            if reset:
                linger = (1).to_bytes(4, "little") + bytes(4)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sendall(request if whole else request[: rng.randrange(len(request))])
            tally.disturbed(
                f"hung up {'before reading' if whole else 'while sending'}"
                f"{', with a reset' if reset else ''}"
            )


def breaking_off(
    port: int, known: list[Question], rng: Random, ending: threading.Event, tally: Tally
) -> None:
    """Say that nothing more comes in the middle of a request; the connection must end."""
    while not ending.wait(rng.uniform(0, 0.5)):
        request = chosen(known, SHARES, rng).request
        begun = time.monotonic()
        try:
            with _raw(port) as connection:
                connection.sendall(request[: rng.randrange(len(request))])
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65536):
                    pass
        except OSError as exc:
            tally.broke(begun, exc)
        else:
            tally.disturbed("broke off")


def sending_slowly(
    port: int, known: list[Question], rng: Random, ending: threading.Event, tally: Tally
) -> None:
    """Take seconds for a body; that is slow, but not too slow to be answered."""
    while not ending.is_set():
        question = chosen(known, {"small": 1, "heatmap": 1, "bad": 1}, rng)
        size = max(1, len(question.request) // 20)
        pieces = [question.request[i : i + size] for i in range(0, len(question.request), size)]
        begun = time.monotonic()
        try:
            with _raw(port) as connection:
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(SLOWLY_S / len(pieces))
                answer = Connection.of(connection, port).answer()
        except (OSError, HTTPException) as exc:
            tally.broke(begun, exc)
        else:
            tally.answered(question, answer, time.monotonic() - begun)
            tally.disturbed("sent slowly")


def stalling_body(
    port: int, known: list[Question], rng: Random, ending: threading.Event, tally: Tally
) -> None:
    """Stop in the middle of a body: that is answered with 408."""
    _stall(port, "body", lambda request: request[: len(request) // 2], known, rng, ending, tally)


def stalling_head(
    port: int, known: list[Question], rng: Random, ending: threading.Event, tally: Tally
) -> None:
    """Stop in the middle of a head: that is answered with 408, too."""
    _stall(port, "head", lambda request: request[:40], known, rng, ending, tally)


def _stall(
    port: int,
    where: str,
    begins: Callable[[bytes], bytes],
    known: list[Question],
    rng: Random,
    ending: threading.Event,
    tally: Tally,
) -> None:
    while not ending.is_set():
        begun = time.monotonic()
        request = begins(chosen(known, {"small": 1}, rng).request)
        try:
            outcomes = [_outcome(a) for a in exchange(port, request, patience_s=HEAD_STALLS_S)]
        except (OSError, HTTPException) as exc:
            tally.broke(begun, exc)
            continue
        if not outcomes:  # whoever is killed tells nothing
            tally.broke(begun, ConnectionResetError("no answer"))
        elif outcomes == [f"408 slow_{where}"]:
            tally.disturbed(f"stalled in the {where}")
        else:
            with tally.lock:
                tally.wrong.append(f"stalled in the {where}: {outcomes}")


def _outcome(answer: Answer) -> str:
    """The outcome even where it is not what an answer must be: that is counted, and found wrong."""
    try:
        return outcome_of_answer(answer)
    except (AssertionError, KeyError, ValueError) as exc:
        return f"{answer.status} {exc}"


# --- one bad file, many heatmaps ------------------------------------------------------------------


def one_bad_file(port: int) -> dict[str, Any]:
    """Batches of which one file is bad, in every place: the others are answered as if alone."""
    n_right = n_bad = 0
    problems = Counter[str]()
    with serving(port, workers=2), Connection(port) as connection:
        alone = [
            parsed_json(connection.ask(upload("/predict", [("a", path.read_bytes())])).body)
            for path in EXAMPLES
        ]
        for bad_at in range(N_IN_BATCH):
            files = batch_of_one_bad(N_IN_BATCH, bad_at)
            answer = connection.ask(upload("/predict_batch", files))
            results = parsed_json(answer.body)["results"]
            for number, result in enumerate(results):
                if number == bad_at:
                    n_bad += "error" in result and result["filename"] == str(number)
                    problems[result["error"]["code"]] += 1
                else:
                    expected = {
                        "filename": str(number),
                        "prediction": alone[number % len(alone)],
                    }
                    n_right += result == expected
    n = N_IN_BATCH * (N_IN_BATCH - 1)
    return {
        "held": (n_right, n_bad) == (n, N_IN_BATCH),
        "batches": N_IN_BATCH,
        "files_each": N_IN_BATCH,
        "good": n,
        "good_answered_as_alone": n_right,
        "problems": dict(problems),
    }


def heatmaps(port: int) -> dict[str, Any]:
    """As many heatmaps at once as one after the other: the same bytes."""
    target = "/predict?heatmap=true&evidence=true&preview=true"
    requests = [
        upload(target, [(str(number), EXAMPLES[number % len(EXAMPLES)].read_bytes())])
        for number in range(N_HEATMAPS)
    ]
    with serving(port, workers=2, queue_size=N_HEATMAPS):
        with Connection(port) as connection:
            serial = [connection.ask(request) for request in requests]
        begin = threading.Barrier(N_HEATMAPS)

        def ask(request: bytes) -> Answer:
            with Connection(port) as connection:
                begin.wait()
                return connection.ask(request)

        with ThreadPoolExecutor(N_HEATMAPS) as pool:
            concurrent = list(pool.map(ask, requests))
    equal = sum(
        one.status == other.status == 200 and one.body == other.body
        for one, other in zip(serial, concurrent, strict=True)
    )
    return {
        "held": equal == N_HEATMAPS,
        "n": N_HEATMAPS,
        "equal_bytes": equal,
        "statuses": dict(Counter(str(answer.status) for answer in concurrent)),
    }


if __name__ == "__main__":
    main()
