"""The folder ``FILE.parts``: what an archive holds, which parts are done, and the whole at the end.

The plan, every file of the archive on a line, is made once and then only read: a killed run that
is called again scores the same parts, whatever the archive holds by then. A part's file appears
when it is whole, so what is there is done. Whoever made the rows, they end in the same file.

Does not: make rows, or know where they are made.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, astuple
from itertools import count, islice
from pathlib import Path
from typing import IO

from chestxray.archive.files import Item, Walk, find
from chestxray.archive.rows import (
    CSV_ENCODING,
    Row,
    csv_to_parquet,
    header,
    outcome,
    read_csv,
    write_csv,
)
from chestxray.archive.scoring import Job, Part
from chestxray.errors import ConfigError, EmptyDatasetError

PART_FILES = 256
"""Files in a part: a kill costs some seconds, and ten million files make 40,000 parts."""

_PLAN, _JOB, _LOCK = "plan.jsonl", "job.json", "lock"


class Work:
    """The work on one archive, new or begun; make one with :func:`open_work`."""

    def __init__(self, folder: Path, n_files: int, n_litter: int, n_bundles: int) -> None:
        self._folder, self._n_bundles = folder, n_bundles
        self.n_files, self.n_litter = n_files, n_litter

    @property
    def n_parts(self) -> int:
        return -(-self.n_files // PART_FILES)

    def parts_to_do(self) -> Iterator[Part]:
        """The parts that nobody has done, read from the plan as they are asked for."""
        with (self._folder / _PLAN).open(encoding="ascii") as lines:
            for number in count():
                part = list(islice(lines, PART_FILES))
                if not part:
                    return
                if not self._file(number).exists():
                    yield Part(number, tuple(Item(*json.loads(line)) for line in part))

    def outcomes_done(self) -> Counter[str]:
        """How many files of the parts that are done ended with each error code ('' for none)."""
        done: Counter[str] = Counter()
        for number in range(self.n_parts):
            if self._file(number).exists():
                rows = read_csv(self._file(number))
                files = zip(*[rows] * self._n_bundles, strict=True)  # each with a row by each
                done.update(map(outcome, files))
        return done

    def keep(self, number: int, rows: Iterable[Row]) -> None:
        """Write a part that is done."""
        with _appearing(self._file(number)) as file:
            write_csv(rows, file)

    def make_whole(self, out: Path) -> None:
        """All parts, in their order, as ``out``; then the folder goes."""
        files = [self._file(number) for number in range(self.n_parts)]
        if out.suffix == ".parquet":
            temporary = self._folder / "whole.parquet"
            csv_to_parquet(files, temporary)
            with temporary.open("rb") as whole:
                os.fsync(whole.fileno())
            temporary.replace(out)
        else:
            with _appearing(out, self._folder / "whole.csv") as file:
                file.write(header())
                for part in files:
                    with part.open(**CSV_ENCODING) as lines:  # type: ignore[call-overload]
                        shutil.copyfileobj(lines, file)
        (self._folder / _JOB).unlink()  # killed from here on, what is left is of no use
        shutil.rmtree(self._folder)

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:08}.csv"


@contextmanager
def open_work(source: str, out: Path, job: Job) -> Iterator[Work]:
    """Begin the work on ``source`` beside ``out``, or go on with it; only one process may.

    Raises:
        ConfigError: there is nothing at ``source``, or what was begun has another archive, other
            bundles, choices or current directory, or another process is at it.
        EmptyDatasetError: ``source`` holds no file.
        OSError: the folder of ``out`` cannot be written.
    """
    folder = out.with_name(f"{out.name}.parts")
    folder.mkdir(exist_ok=True)
    told = {
        "source": source,
        "current_directory": str(Path.cwd()),  # the plan's paths may be relative to it
        "bundles": [[name, bundle.sha256] for name, bundle in job.bundles.items()],
        "choices": asdict(job.choices),
    }
    with _locked(folder):
        file = folder / _JOB
        if not file.exists():
            for stale in folder.glob("[0-9]*.csv"):  # of a run that was killed when it was whole
                stale.unlink()
            try:
                n_files, n_litter = _plan(source, out, folder)
            except (ConfigError, EmptyDatasetError):
                for ours in ("plan.tmp", _PLAN, _LOCK):
                    (folder / ours).unlink(missing_ok=True)
                with suppress(OSError):  # it holds what is not ours
                    folder.rmdir()
                raise
            with _appearing(file) as stream:
                json.dump(told | {"n_files": n_files, "n_litter": n_litter}, stream, indent=1)
        begun = json.loads(file.read_text(encoding="utf-8"))
        n_files, n_litter = begun.pop("n_files"), begun.pop("n_litter", 0)
        if begun != told:
            raise ConfigError(
                f"{folder} holds the begun scoring of something else: "
                "repeat its command, delete it, or choose another --out"
            )
        yield Work(folder, n_files, n_litter, len(job.bundles))


def _plan(source: str, out: Path, folder: Path) -> tuple[int, int]:
    """Write down every file; returns how many there are, and how many a system left behind."""
    facts = folder.stat()
    walk = Walk(out, {(facts.st_dev, facts.st_ino)})
    n_files = 0
    with _appearing(folder / _PLAN) as plan:
        for item in find(source, walk):
            plan.write(json.dumps(astuple(item)) + "\n")
            n_files += 1
    if n_files == 0:
        besides = f" but {walk.n_litter:,} that systems leave behind" if walk.n_litter else ""
        raise EmptyDatasetError(f"{source} holds no file{besides}")
    return n_files, walk.n_litter


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise ConfigError(f"another process is at work in {folder}") from exc
        yield


@contextmanager
def _appearing(file: Path, temporary: Path | None = None) -> Iterator[IO[str]]:
    """A text file that appears when it is whole and on the disk."""
    temporary = temporary or file.with_suffix(".tmp")
    with temporary.open("w", **CSV_ENCODING) as stream:  # type: ignore[call-overload]
        yield stream
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)
