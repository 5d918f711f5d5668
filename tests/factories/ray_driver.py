"""``score_on_cluster`` in a process of its own, since Ray may end the process that it is in."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from multiprocessing.connection import Connection
from typing import NamedTuple

from chestxray.archive import cluster
from chestxray.archive.rows import Row
from chestxray.archive.scoring import Job, Part
from chestxray.errors import ChestXrayError

ENDS_WITHIN_S = 60


class Scored(NamedTuple):
    """A part's number, its files' rows, and how many parts had been asked for by then."""

    number: int
    rows: list[list[Row]]
    n_taken: int


def scored(
    parts: Callable[[], Iterable[Part]], job: Job, address: str, **constants: float
) -> Iterator[Scored]:
    """What ``score_on_cluster`` yields for ``parts()``, as it comes; raises what it raises.

    ``constants`` are the room's own, by their names, with other values.
    """
    processes = multiprocessing.get_context("spawn")
    ours, theirs = processes.Pipe(duplex=False)
    driver = processes.Process(target=_drive, args=(theirs, parts, job, address, constants))
    driver.start()
    theirs.close()
    try:
        while (said := _said(ours, driver)) is not None:
            if isinstance(said, ChestXrayError):
                raise said
            yield said
    finally:
        driver.kill()
        driver.join(ENDS_WITHIN_S)
        ours.close()


def _said(ours: Connection, driver: multiprocessing.process.BaseProcess) -> object:
    try:
        return ours.recv()
    except EOFError:
        driver.join(ENDS_WITHIN_S)
        raise AssertionError(f"the driver ended with {driver.exitcode}") from None


def _drive(
    theirs: Connection,
    parts: Callable[[], Iterable[Part]],
    job: Job,
    address: str,
    constants: dict[str, float],
) -> None:
    for name, value in constants.items():
        assert hasattr(cluster, name)
        setattr(cluster, name, value)
    n_taken = 0

    def counted() -> Iterator[Part]:
        nonlocal n_taken
        for part in parts():
            n_taken += 1
            yield part

    try:
        for number, rows in cluster.score_on_cluster(counted(), job, address):
            theirs.send(Scored(number, rows, n_taken))
    except ChestXrayError as exc:
        theirs.send(exc)
    else:
        theirs.send(None)
