"""What has become of everything that came in: counts, read beside a running node or without one.

Does not: change anything, or know who a patient is.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

from pydantic import BaseModel, Field

from chestxray.errors import NodeError
from chestxray.pacs.config import NodeConfig
from chestxray.pacs.spool import DATABASE_FILE


class DestinationStatus(BaseModel):
    """Of one destination."""

    answered: int = Field(0, description="instances whose answer it has acknowledged")
    waiting: int = Field(0, description="answers still to be sent to it")
    oldest_waiting_s: float | None = Field(
        None, description="since when the oldest of them has been here, in seconds"
    )
    failing: dict[str, int] = Field(
        default_factory=dict, description="how many of them have failed, by reason"
    )


class Status(BaseModel):
    """Of the node, since its folder was made."""

    received: int = Field(0, description="instances that were taken in")
    answered: int = Field(0, description="instances whose answer was acknowledged")
    refused: dict[str, int] = Field(
        default_factory=dict, description="instances that get no answer, by reason"
    )
    waiting: int = Field(0, description="instances still to be judged or answered")
    oldest_waiting_s: float | None = Field(
        None, description="since when the oldest of them has been here, in seconds"
    )
    to_judge: int = Field(0, description="those of them that are not judged yet")
    kept: int = Field(0, description="finished instances whose received file is kept for a while")
    destinations: dict[str, DestinationStatus] = Field(
        default_factory=dict, description="by the destination's name"
    )


def read_status(config: NodeConfig) -> Status:
    """Count what is in the folder of the node.

    Raises:
        NodeError: there is no such folder, or no node has worked there.
    """
    file = config.node.folder / DATABASE_FILE
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            database.execute("BEGIN")  # all counts at one moment
            return _count(database, [destination.name for destination in config.destination])
    except sqlite3.Error as exc:
        raise NodeError(f"no node has worked in {config.node.folder}: {exc}") from exc


def _count(database: sqlite3.Connection, names: list[str]) -> Status:
    status = Status(destinations={name: DestinationStatus() for name in names})
    for outcome, reason, n in database.execute("SELECT outcome, reason, n FROM tally"):
        if outcome == "received":
            status.received = n
        elif outcome == "refused":
            status.refused[reason] = n
        else:
            status.answered += n
            status.destinations.setdefault(reason, DestinationStatus()).answered = n
    status.waiting, status.oldest_waiting_s = _n_and_age(
        database, "state IN ('waiting', 'judging', 'judged')"
    )
    status.to_judge, _ = _n_and_age(database, "state IN ('waiting', 'judging')")
    status.kept, _ = _n_and_age(database, "state = 'kept'")
    failing = dict(database.execute("SELECT destination, reason FROM failing"))
    for name, its in status.destinations.items():
        its.waiting, its.oldest_waiting_s = _n_and_age(
            database, "state = 'judged' AND destination = ?", name
        )
        if name in failing and its.waiting:
            its.failing = {failing[name]: its.waiting}
        else:
            its.failing = dict(
                database.execute(
                    "SELECT failure, count(*) FROM instance WHERE state = 'judged'"
                    " AND destination = ? AND failure IS NOT NULL GROUP BY failure",
                    (name,),
                )
            )
    return status


def _n_and_age(
    database: sqlite3.Connection, where: str, *values: object
) -> tuple[int, float | None]:
    n, oldest = database.execute(
        f"SELECT count(*), min(received) FROM instance WHERE {where}",  # noqa: S608 - our own words
        values,
    ).fetchone()
    return n, None if oldest is None else round(max(0.0, time.time() - oldest), 1)
