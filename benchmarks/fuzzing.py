"""The long run of mutated inputs: images read in process, and images, forms and requests sent.

    .venv/bin/python benchmarks/fuzzing.py --n 100000 --seed 1

Mutants are a function of (seed, index); the tests send fewer, of another seed. What must hold is
in tests/factories/oracles.py. After every batch a good radiograph must get the same answer as
before the first, byte for byte. A run goes on where it was stopped: finished batches lie in
runs/fuzzing, and beside them, as files, the inputs that did not get what they should. At the end
Schemathesis holds the service against its OpenAPI document.

Exits with 1 where anything did not hold.

Does not: mend what it finds; keep that as bytes in a test.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from http.client import HTTPException
from itertools import groupby
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

from machine import REPOSITORY, commit
from reliability import Server, arguments, peak_mb_of, serving, write_section

from factories.bundles import write_tiny_bundle
from factories.exchanges import Connection, HangError, exchange, upload
from factories.hostile_requests import form_mutant, request_mutant
from factories.mutations import Mutant, image_mutant
from factories.oracles import (
    WHOLE_ANSWER,
    assert_answers_reading,
    outcome_of_answer,
    outcome_of_reading,
    target_for,
)
from factories.requests import radiograph_png
from factories.schemathesis_run import held_against_document

PORT = 8500
STATE = REPOSITORY / "runs" / "fuzzing"

BATCH = 2500
KEPT_SLOWEST = 3
KEPT_FAILURES = 20

READING_HANGS_AFTER_S = 60.0
READING_MEMORY_BYTES = 4 * 2**30
"""Beyond it a read fails; the dearest that is accepted takes an eighth of it."""

BODY_TIMEOUT_S = 1.0
"""Of the served: many mutants break off, and nobody learns anything from waiting 20 s for each."""

PATIENCE_S = 3.0
"""More than BODY_TIMEOUT_S: what is silent for so long waits for the rest of a head."""

MAX_EXAMPLES = 300


@dataclass
class Batch:
    """What became of the mutants ``first`` to ``first + size`` of a stage."""

    stage: str
    first: int
    size: int
    took_s: float = 0.0
    memory_mb: float = 0.0
    """The most that was ever resident: of the process that reads, or of the server."""
    outcomes: dict[str, int] = field(default_factory=dict)
    slowest: list[tuple[float, int, str]] = field(default_factory=list)
    """(seconds, index, how it was made)."""
    failures: list[tuple[int, str]] = field(default_factory=list)
    """(index, what did not hold); index -1 is of the batch as a whole."""


Make = Callable[[int, int], Mutant]
"""From a seed and an index."""


@dataclass(frozen=True)
class Stage:
    """A share of the run. ``threads`` ask at the same time."""

    name: str
    share: float
    make: Make
    threads: int = 1
    tiny: bool = True


STAGES = (
    Stage("images read in process", 0.4, image_mutant),
    Stage("images sent, tiny bundle", 0.25, image_mutant, threads=4),
    Stage("images sent, shipped bundle", 0.05, image_mutant, threads=4, tiny=False),
    Stage("forms sent", 0.2, form_mutant, threads=16),
    Stage("requests sent", 0.1, request_mutant, threads=48),
)
IN_PROCESS = STAGES[0]


def main() -> None:
    asked = arguments(__doc__, port=PORT)
    asked.add_argument("--n", type=int, default=100_000, help="mutants of all kinds [100000]")
    asked.add_argument("--seed", type=int, default=1, help="of the mutants [1]")
    given = asked.parse_args()

    STATE.mkdir(parents=True, exist_ok=True)
    state = STATE / f"{commit()}-n{given.n}-seed{given.seed}.jsonl"
    batches = _run(state, given.n, given.seed, given.port)
    openapi = _openapi(given.seed, given.port)
    facts = {
        "n": sum(batch.size for batch in batches),
        "seed": given.seed,
        "stages": [_summary(stage, batches) for stage in STAGES],
        "openapi": openapi,
    }
    took_s = sum(batch.took_s for batch in batches) + openapi["took_s"]
    write_section(given.out, "fuzzing", facts, took_s=took_s)
    print(json.dumps(facts, indent=1, ensure_ascii=False))
    sys.exit(any(batch.failures for batch in batches) or openapi["exit_code"] != 0)


def planned(n: int) -> list[Batch]:
    """The batches of a run of ``n``; every index occurs once, so that all mutants differ."""
    batches, first = [], 0
    for stage in STAGES:
        end = first + (n - first if stage is STAGES[-1] else round(n * stage.share))
        batches += [Batch(stage.name, at, min(BATCH, end - at)) for at in range(first, end, BATCH)]
        first = end
    return batches


def _run(state: Path, n: int, seed: int, port: int) -> list[Batch]:
    lines = state.read_text(encoding="utf-8").splitlines() if state.exists() else []
    done = {batch.first: batch for batch in (Batch(**json.loads(line)) for line in lines)}
    missing = [batch for batch in planned(n) if batch.first not in done]
    for name, batches in groupby(missing, key=lambda batch: batch.stage):
        stage = next(stage for stage in STAGES if stage.name == name)
        run = _read_in_process if stage is IN_PROCESS else _send_all
        for batch in run(stage, list(batches), seed, port):
            for index, error in batch.failures:
                _keep(stage, seed, index, error)
            with state.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(batch)) + "\n")
            done[batch.first] = batch
            print(f"{batch.first + batch.size:8} {name}: {batch.took_s:.0f} s", file=sys.stderr)
    return [done[first] for first in sorted(done)]


def _keep(stage: Stage, seed: int, index: int, error: str) -> None:
    """The input as a file, and beside it how it was made and what did not hold."""
    print(f"FAILED {stage.name}, seed {seed}, index {index}: {error}", file=sys.stderr)
    if index < 0:
        return
    mutant = stage.make(seed, index)
    name = f"{stage.make.__name__}-seed{seed}-{index}"
    (STATE / f"{name}.bin").write_bytes(mutant.data)
    told = {"base": mutant.base, "operators": mutant.operators, "error": error}
    (STATE / f"{name}.json").write_text(json.dumps(told, indent=1), encoding="utf-8")


def _summary(stage: Stage, batches: Sequence[Batch]) -> dict[str, Any]:
    mine = [batch for batch in batches if batch.stage == stage.name]
    outcomes = Counter[str]()
    for batch in mine:
        outcomes.update(batch.outcomes)
    slowest = sorted((slow for batch in mine for slow in batch.slowest), reverse=True)
    return {
        "name": stage.name,
        "n": sum(batch.size for batch in mine),
        "first_index": mine[0].first if mine else None,
        "took_s": round(sum(batch.took_s for batch in mine), 1),
        "outcomes": dict(outcomes.most_common()),
        "slowest": slowest[:KEPT_SLOWEST],
        "memory_mb": round(max((batch.memory_mb for batch in mine), default=0), 1),
        "n_failures": sum(len(batch.failures) for batch in mine),
        "failures": [failure for batch in mine for failure in batch.failures][:KEPT_FAILURES],
    }


def _judge(
    batch: Batch,
    indices: Sequence[int],
    make: Callable[[int], Mutant],
    outcomes_of: Callable[[Mutant], list[str]],
) -> None:
    """Judge the mutants and put what comes out into ``batch``, which is one thread's alone."""
    for index in indices:
        mutant = make(index)
        begun = time.perf_counter()
        try:
            outcomes = outcomes_of(mutant)
        except (AssertionError, HangError, HTTPException, OSError, KeyError, ValueError) as exc:
            batch.failures.append((index, f"{type(exc).__name__}: {exc}"[:500]))
            outcomes = ["failed"]
        took_s = time.perf_counter() - begun
        for outcome in outcomes:
            batch.outcomes[outcome] = batch.outcomes.get(outcome, 0) + 1
        made = f"{mutant.base}: {', '.join(mutant.operators)}"
        batch.slowest.append((round(took_s, 3), index, made))
        if len(batch.slowest) > 100:
            batch.slowest = _slowest(batch)
    batch.slowest = _slowest(batch)


def _slowest(batch: Batch) -> list[tuple[float, int, str]]:
    return sorted(batch.slowest, reverse=True)[:KEPT_SLOWEST]


# --- read in process ------------------------------------------------------------------------------


def _read_in_process(stage: Stage, batches: list[Batch], seed: int, _: int) -> Iterator[Batch]:
    """Each batch in a process of its own: its memory is known, and a crash costs one mutant."""
    for batch in batches:
        begun = time.perf_counter()
        _read_range(batch.first, batch.first + batch.size, batch, stage.make, seed)
        batch.took_s = time.perf_counter() - begun
        yield batch


def _read_range(first: int, end: int, batch: Batch, make: Make, seed: int) -> None:
    """Read the mutants ``first`` to ``end``; where one ends the process, those around it again."""
    if first == end:
        return
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    current = context.Value("q", first, lock=False)
    process = context.Process(target=_read_all, args=(first, end, make, seed, current, theirs))
    process.start()
    theirs.close()
    at, since = first, time.monotonic()
    while not ours.poll(1):
        if current.value != at:
            at, since = current.value, time.monotonic()
        if time.monotonic() - since > READING_HANGS_AFTER_S:
            process.kill()
    try:
        _merge(batch, Batch(**ours.recv()))
        process.join()
    except EOFError:
        process.join()
        failed = current.value
        failure = f"the process that read it ended with {process.exitcode}"
        batch.failures.append((failed, failure))
        _read_range(first, failed, batch, make, seed)
        _read_range(failed + 1, end, batch, make, seed)


def _merge(batch: Batch, part: Batch) -> None:
    batch.memory_mb = max(batch.memory_mb, part.memory_mb)
    batch.outcomes = dict(Counter(batch.outcomes) + Counter(part.outcomes))
    batch.slowest += part.slowest
    batch.failures += part.failures


def _read_all(first: int, end: int, make: Make, seed: int, current: Any, results: Pipe) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (READING_MEMORY_BYTES, READING_MEMORY_BYTES))
    part = Batch(IN_PROCESS.name, first, end - first)

    def next_mutant(index: int) -> Mutant:
        current.value = index
        return make(seed, index)

    _judge(part, range(first, end), next_mutant, lambda mutant: [outcome_of_reading(mutant.data)])
    part.memory_mb = peak_mb_of("self")
    results.send(asdict(part))


# --- sent -----------------------------------------------------------------------------------------


def _send_all(stage: Stage, batches: list[Batch], seed: int, port: int) -> Iterator[Batch]:
    """All batches of a stage to one server; a good radiograph gets the same answer all the time."""
    with _server(port, tiny=stage.tiny) as server:
        good = _answer_to_good(port)
        n_errors = 0
        for batch in batches:
            begun = time.perf_counter()
            _send(stage, batch, seed, port)
            batch.took_s = time.perf_counter() - begun
            batch.memory_mb = server.peak_mb()
            errors = server.errors_logged()
            batch.failures += [(-1, f"logged: {line[:500]}") for line in errors[n_errors:]]
            n_errors = len(errors)
            if _answer_to_good(port) != good:
                batch.failures.append((-1, "a good radiograph gets another answer than before"))
            yield batch


@contextmanager
def _server(port: int, *, tiny: bool, **settings: object) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        bundles = [write_tiny_bundle(Path(folder))] if tiny else []
        with serving(port, bundles=bundles, body_timeout_s=BODY_TIMEOUT_S, **settings) as server:
            yield server


def _answer_to_good(port: int) -> bytes:
    with Connection(port) as connection:
        answer = connection.ask(upload(WHOLE_ANSWER, [("a.png", radiograph_png())]))
    outcome_of_answer(answer)
    return answer.body


def _send(stage: Stage, batch: Batch, seed: int, port: int) -> None:
    indices = range(batch.first, batch.first + batch.size)
    parts = [Batch(batch.stage, batch.first, batch.size) for _ in range(stage.threads)]

    def work(number: int) -> None:
        with Connection(port) as connection:

            def image(mutant: Mutant) -> list[str]:
                answer = connection.ask(upload(target_for(mutant.data), [("a.png", mutant.data)]))
                assert_answers_reading(answer, outcome_of_reading(mutant.data))
                return [outcome_of_answer(answer)]

            def request(mutant: Mutant) -> list[str]:
                answers = exchange(port, mutant.data, patience_s=PATIENCE_S)
                return [outcome_of_answer(answer) for answer in answers] or ["no answer"]

            outcomes_of = image if stage.make is image_mutant else request
            mine = indices[number :: stage.threads]
            _judge(parts[number], mine, lambda index: stage.make(seed, index), outcomes_of)

    with ThreadPoolExecutor(stage.threads) as pool:
        list(pool.map(work, range(stage.threads)))
    for part in parts:
        _merge(batch, part)


# --- held against its document --------------------------------------------------------------------


def _openapi(seed: int, port: int) -> dict[str, Any]:
    key = secrets.token_hex(16)
    begun = time.perf_counter()
    keys = f"fuzzing:{sha256(key.encode()).hexdigest()}"
    with _server(port, tiny=True, api_keys=keys), tempfile.TemporaryDirectory() as folder:
        run = held_against_document(
            f"http://127.0.0.1:{port}",
            key,
            seed=seed,
            max_examples=MAX_EXAMPLES,
            folder=Path(folder),
        )
    if run.exit_code:
        print(run.output, file=sys.stderr)
    statuses = {f"{label}: {status}": n for (label, status), n in sorted(run.statuses.items())}
    return {
        "schemathesis": run.report["schemathesis_version"],
        "took_s": round(time.perf_counter() - begun, 1),
        "exit_code": run.exit_code,
        "n": run.report["test_cases"]["generated"],
        "n_failures": len(run.report["failures"]) + len(run.report["errors"]),
        "checks": sorted(run.checks),
        "statuses": statuses,
    }


if __name__ == "__main__":
    main()
