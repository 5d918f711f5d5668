"""The node's durable queue: a row of SQLite and a file for each instance that has arrived.

An instance is ``waiting`` from the moment its arrival is acknowledged, ``judging`` while a judge
has it, ``judged`` while its answer waits to be sent, and then gone, or ``kept`` as long as the
operator sets. What has become of those that are gone is a tally, so the database stays small.

Nothing that was acknowledged is lost: files are written under another name, synced and renamed, and
only then does their row appear; a row disappears before its files do. Whoever moves an instance on
says whence, so a process that outlives its node for a moment moves nothing any more.

Does not: look into the files, whose names are random, or keep anything of a patient beside them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import stat
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from chestxray.errors import NodeError

DATABASE_FILE, LOCK_FILE, FILES_FOLDER = "queue.sqlite", "lock", "files"

MAX_CRASHES = 3
"""Judges that an instance may take with it before it is refused."""

MAX_BACKOFF_S = 300.0
"""Longest wait before an instance that its destination has refused is sent again."""

FORMAT = 1

# When an instance was received and until when it is kept are times of the day. When it was given
# to a judge, and when an answer is due again, are those of the monotonic clock, which no one sets;
# ``recover`` forgets them, since a reboot begins it anew.
_SCHEMA = f"""
CREATE TABLE instance (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    state TEXT NOT NULL,
    received REAL NOT NULL,
    calling_ae TEXT NOT NULL,
    file TEXT NOT NULL,
    judge TEXT,
    crashes INTEGER NOT NULL DEFAULT 0,
    destination TEXT,
    answer TEXT,
    attempts INTEGER NOT NULL DEFAULT 0,
    failure TEXT,
    due REAL NOT NULL DEFAULT 0
);
CREATE INDEX instance_by_state ON instance (state, destination);
CREATE TABLE tally (
    outcome TEXT, reason TEXT, n INTEGER NOT NULL, PRIMARY KEY (outcome, reason)
) WITHOUT ROWID;
CREATE TABLE failing (destination TEXT PRIMARY KEY, reason TEXT NOT NULL) WITHOUT ROWID;
PRAGMA user_version = {FORMAT};
"""

Parts = Iterable[bytes | memoryview]


class Waiting(NamedTuple):
    """An instance that a judge has claimed."""

    number: int
    file: Path
    calling_ae: str


class Judged(NamedTuple):
    """An instance whose answer is to be sent, and how often that has failed."""

    number: int
    files: list[Path]
    attempts: int


class Spool:
    """The queue in ``folder``, as one process sees it; its threads may share it.

    ``keep_s`` is how long received files are kept when they are finished.
    """

    def __init__(self, folder: Path, *, keep_s: float = 0) -> None:
        self._files = folder / FILES_FOLDER
        self._keep_s = keep_s
        self._lock = threading.Lock()
        with _translated():
            self._database = sqlite3.connect(
                folder / DATABASE_FILE, timeout=30, isolation_level=None, check_same_thread=False
            )
            self._database.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        self._database.close()

    def add(self, parts: Parts, calling_ae: str) -> int:
        """Take in an instance, durably, and return its number; ``parts`` are its file's bytes.

        Raises:
            OSError, NodeError: it was not taken in, for instance because the disk is full.
        """
        name = secrets.token_hex(16)
        self._write({name: parts})
        try:
            with self._transaction() as database:
                _count(database, "received", "")
                row = database.execute(
                    "INSERT INTO instance (state, received, calling_ae, file)"
                    " VALUES ('waiting', ?, ?, ?) RETURNING id",
                    (time.time(), calling_ae, name),
                ).fetchone()
        except NodeError:
            self._remove(name)
            raise
        return int(row[0])

    def claim(self, judge: str) -> Waiting | None:
        """Give the oldest waiting instance to a judge, which moves it on under the same name.

        What the judge has already counts as waiting: it is given again.
        """
        free = "FROM instance WHERE state = 'waiting' OR state = 'judging' AND judge = ?"
        # Idle judges ask often, and reading waits for nobody.
        if not self._select(f"SELECT 1 {free} LIMIT 1", judge):
            return None
        with self._transaction() as database:
            row = database.execute(
                "UPDATE instance SET state = 'judging', judge = ?, due = ?"  # noqa: S608 - our own
                f" WHERE id = (SELECT min(id) {free}) RETURNING id, file, calling_ae",
                (judge, time.monotonic(), judge),
            ).fetchone()
        return None if row is None else Waiting(row[0], self._files / row[1], row[2])

    def stuck(self, judge: str, longer_than_s: float) -> bool:
        """Whether ``judge`` has had what it has for longer than that."""
        return bool(
            self._select(
                "SELECT 1 FROM instance WHERE state = 'judging' AND judge = ? AND due < ?",
                judge,
                time.monotonic() - longer_than_s,
            )
        )

    def judged(self, number: int, judge: str, destination: str, answer: Sequence[Parts]) -> None:
        """Keep an answer's files, durably, until they are sent to ``destination`` in this order.

        Raises:
            OSError, NodeError: it was not kept, and the instance is still the judge's.
        """
        name = secrets.token_hex(16)
        files = {f"{name}.{position}": parts for position, parts in enumerate(answer)}
        self._write(files)
        with self._transaction() as database:
            moved = database.execute(
                "UPDATE instance SET state = 'judged', judge = NULL, destination = ?, answer = ?"
                " WHERE id = ? AND state = 'judging' AND judge = ?",
                (destination, " ".join(files), number, judge),
            ).rowcount
        if not moved:
            self._remove(*files)

    def refused(self, number: int, judge: str, reason: str) -> None:
        """Finish an instance without an answer; ``reason`` is an error's code."""
        self._finish("refused", reason, "id = ? AND state = 'judging' AND judge = ?", number, judge)

    def crashed(self, judge: str) -> None:
        """``judge`` has died of what it had: that waits again, or is refused after a few times."""
        with self._transaction() as database:
            database.execute(
                "UPDATE instance SET state = 'waiting', judge = NULL, crashes = crashes + 1"
                " WHERE state = 'judging' AND judge = ?",
                (judge,),
            )
        self._finish("refused", "crashed", "state = 'waiting' AND crashes >= ?", MAX_CRASHES)

    def to_send(
        self, destination: str, limit: int, *, lane: int = 0, lanes: int = 1
    ) -> list[Judged]:
        """The oldest answers that are due at ``destination``, of those in a lane of several."""
        rows = self._select(
            "SELECT id, answer, attempts FROM instance WHERE state = 'judged' AND destination = ?"
            " AND due <= ? AND id % ? = ? ORDER BY id LIMIT ?",
            destination,
            time.monotonic(),
            lanes,
            lane,
            limit,
        )
        return [
            Judged(number, [self._files / name for name in answer.split()], attempts)
            for number, answer, attempts in rows
        ]

    def answered(self, number: int, destination: str) -> None:
        """Finish an instance whose answer was acknowledged."""
        self._finish("answered", destination, "id = ? AND state = 'judged'", number)

    def failed(self, number: int, reason: str, retry_in_s: float) -> None:
        """The destination has refused this answer; it is due again in ``retry_in_s``."""
        with self._transaction() as database:
            database.execute(
                "UPDATE instance SET failure = ?, attempts = attempts + 1, due = ?"
                " WHERE id = ? AND state = 'judged'",
                (reason, time.monotonic() + retry_in_s, number),
            )

    def answer_lost(self, number: int) -> None:
        """Someone has deleted the answer's files: the instance is to be judged again."""
        with self._transaction() as database:
            database.execute(
                "UPDATE instance SET state = 'waiting', destination = NULL, answer = NULL"
                " WHERE id = ? AND state = 'judged'",
                (number,),
            )

    def destination_failed(self, destination: str, reason: str) -> None:
        """Nothing can be sent to ``destination``, and why."""
        with self._transaction() as database:
            database.execute("INSERT OR REPLACE INTO failing VALUES (?, ?)", (destination, reason))

    def destination_recovered(self, destination: str) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM failing WHERE destination = ?", (destination,))

    def delete_expired(self) -> None:
        """Delete what was kept long enough."""
        with self._transaction() as database:
            names = database.execute(
                "DELETE FROM instance WHERE state = 'kept' AND due <= ? RETURNING file",
                (time.time(),),
            ).fetchall()
        self._remove(*(name for (name,) in names))

    def recover(self, destinations: Collection[str]) -> None:
        """Put in order what an earlier node has left: to be called while no other works here.

        What was in work is waiting again, and so is what is judged for a destination that is no
        longer among ``destinations``; what has failed is due at once; files of nobody are deleted.
        """
        marks = ", ".join("?" * len(destinations))
        with self._transaction() as database:
            database.execute(
                "UPDATE instance SET state = 'waiting', judge = NULL, destination = NULL,"  # noqa: S608
                " answer = NULL, attempts = 0, failure = NULL, due = 0 WHERE state = 'judging'"
                f" OR state = 'judged' AND destination NOT IN ({marks})",
                (*destinations,),
            )
            database.execute("UPDATE instance SET due = 0 WHERE state = 'judged'")
            database.execute("DELETE FROM failing")
            rows = database.execute("SELECT file, answer FROM instance").fetchall()
        wanted = {file for file, _ in rows}
        wanted.update(name for _, answer in rows if answer for name in answer.split())
        with os.scandir(self._files) as entries:
            self._remove(*(entry.name for entry in entries if entry.name not in wanted))

    def _finish(self, outcome: str, reason: str, where: str, *values: object) -> None:
        kept_until = time.time() + self._keep_s
        with self._transaction() as database:
            rows = database.execute(
                f"SELECT id, file, answer FROM instance WHERE {where}",  # noqa: S608 - our own words
                values,
            ).fetchall()
            for number, _, _ in rows:
                _count(database, outcome, reason)
                if self._keep_s:
                    database.execute(
                        "UPDATE instance SET state = 'kept', judge = NULL, answer = NULL, due = ?"
                        " WHERE id = ?",
                        (kept_until, number),
                    )
                else:
                    database.execute("DELETE FROM instance WHERE id = ?", (number,))
        for _, file, answer in rows:
            self._remove(*(answer.split() if answer else ()))
            if not self._keep_s:
                self._remove(file)

    def _select(self, query: str, *values: object) -> list[Any]:
        with _translated(), self._lock:
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translated(), self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            finally:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")

    def _write(self, files: dict[str, Parts]) -> None:
        """Write files so that after a power cut each is there as a whole; or none of them."""
        try:
            for name, parts in files.items():
                part = self._files / f"{name}.part"
                with open(part, "xb", opener=_private) as stream:
                    for data in parts:
                        stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                part.rename(self._files / name)
            _sync_folder(self._files)
        except OSError:
            self._remove(*files, *(f"{name}.part" for name in files))
            raise

    def _remove(self, *names: str) -> None:
        for name in names:
            with suppress(FileNotFoundError):
                (self._files / name).unlink()


@contextmanager
def open_spool(folder: Path, destinations: Collection[str], *, keep_s: float) -> Iterator[Spool]:
    """The queue in ``folder``, in order and for this node alone.

    The folder is made if it is absent. It is locked until this process ends, however it ends; the
    lock is not inherited by its children.

    Raises:
        NodeError: another node works in the folder, it is not ours or open to others, or its
            database cannot be used.
        OSError: it cannot be made or written.
    """
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    _check_private(folder)
    with open(folder / LOCK_FILE, "ab", opener=_private) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise NodeError(f"another node works in {folder}") from exc
        (folder / FILES_FOLDER).mkdir(mode=0o700, exist_ok=True)
        _prepare_database(folder / DATABASE_FILE)
        spool = Spool(folder, keep_s=keep_s)
        try:
            spool.recover(destinations)
            yield spool
        finally:
            spool.close()


def _check_private(folder: Path) -> None:
    status = folder.stat()
    if status.st_uid != os.geteuid():
        raise NodeError(f"{folder} belongs to another user")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise NodeError(f"{folder} is open to others: chmod 700 it")


def _prepare_database(file: Path) -> None:
    os.close(_private(str(file), os.O_CREAT | os.O_RDWR))  # SQLite gives its other files this mode
    with _translated():
        database = sqlite3.connect(file, timeout=30, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = FULL")
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 0:
                database.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} COMMIT;")
            elif version != FORMAT:
                raise NodeError(f"{file} was made by another version of the node")
        finally:
            database.close()


def _count(database: sqlite3.Connection, outcome: str, reason: str) -> None:
    database.execute(
        "INSERT INTO tally VALUES (?, ?, 1) ON CONFLICT DO UPDATE SET n = n + 1",
        (outcome, reason),
    )


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as exc:
        raise NodeError(f"the queue's database cannot be used: {exc}") from exc
