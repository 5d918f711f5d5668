"""``chestxray score``: an archive in, one file of rows out.

Does not: draw progress (it tells a ``Watch`` how far it is).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from chestxray.archive.rows import Row, outcome
from chestxray.archive.scoring import Job, Part, Scorer
from chestxray.archive.work import open_work
from chestxray.assessment import Choices
from chestxray.errors import ConfigError, RefusedError
from chestxray.inference import Bundle

SUFFIXES = (".csv", ".parquet")


@dataclass(slots=True)
class Tally:
    """How far it is: of ``n_files``, how many ended with which error code ('' for none).

    A file counts once, however many bundles judge it: as judged if any of them did, since others
    are for other patients, else by the first error code among its rows. ``n_before`` were done by
    an earlier run of the same command. ``n_litter`` files of operating systems are not among them.
    """

    n_files: int
    n_before: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    n_litter: int = 0

    @property
    def n_done(self) -> int:
        return self.outcomes.total()

    @property
    def n_judged(self) -> int:
        return self.outcomes[""]

    @property
    def n_refused(self) -> int:
        """Readable, but not what the bundles know, or too small."""
        return sum(n for code, n in self.outcomes.items() if code in REFUSALS)

    @property
    def n_unreadable(self) -> int:
        return self.n_done - self.n_judged - self.n_refused


Watch = Callable[[Tally], None]
"""Told how far it is, after every file or part; what it does with it is its own affair."""


def _codes_under(error: type[RefusedError]) -> set[str]:
    return {error.code}.union(*(_codes_under(below) for below in error.__subclasses__()))


REFUSALS = frozenset(_codes_under(RefusedError))


def score(
    source: str,
    out: Path,
    *,
    bundles: Mapping[str, Bundle],
    choices: Choices,
    threads: int = 1,
    ray: str | None = None,
    watch: Watch,
) -> Tally:
    """Score every file of ``source`` by each of ``bundles`` into ``out``.

    Called again after a kill, it goes on. ``threads`` files are judged at a time, or as many as the
    Ray cluster at ``ray`` has cores.

    Raises:
        ConfigError: ``out`` is neither .csv nor .parquet; or as ``open_work`` does.
        UnknownOperatingPointError, BundleError: a bundle lacks the point, or does not run.
        EmptyDatasetError: ``source`` holds no file.
        ClusterError: the cluster cannot do the work.
        ModuleNotFoundError: an extra is missing: ``parquet``, or ``cluster`` for ``ray``.
    """
    if out.suffix not in SUFFIXES:
        raise ConfigError(f"--out must end in {' or '.join(SUFFIXES)}")
    if out.suffix == ".parquet":
        import pyarrow.parquet  # noqa: F401, PLC0415 - it must not be missing at the end
    for bundle in bundles.values():
        bundle.manifest.operating_point(choices.operating_point)  # before anything is made
    job = Job(bundles, choices)
    with open_work(source, out, job) as work:
        outcomes = work.outcomes_done()
        tally = Tally(work.n_files, outcomes.total(), outcomes, work.n_litter)
        watch(tally)
        parts = work.parts_to_do()
        scored = _score_here(parts, job, threads) if ray is None else _score_on(ray, parts, job)
        for number, files in scored:
            work.keep(number, _counted(files, tally, watch))
        work.make_whole(out)
    return tally


def _score_here(
    parts: Iterable[Part], job: Job, threads: int
) -> Iterator[tuple[int, Iterable[list[Row]]]]:
    with closing(Scorer(job, threads=threads)) as scorer:
        for part in parts:
            yield part.number, scorer.rows(part)


def _score_on(
    address: str, parts: Iterable[Part], job: Job
) -> Iterator[tuple[int, Iterable[list[Row]]]]:
    from chestxray.archive.cluster import score_on_cluster  # noqa: PLC0415 - an extra, and slow

    return score_on_cluster(parts, job, address)


def _counted(files: Iterable[list[Row]], tally: Tally, watch: Watch) -> Iterator[Row]:
    for rows in files:
        tally.outcomes[outcome(rows)] += 1
        watch(tally)
        yield from rows
