"""What scoring an archive costs: against the in-process limit, by the archive's size, and on Ray.

    .venv/bin/python benchmarks/archive.py                # all
    .venv/bin/python benchmarks/archive.py --only limit

*limit*: the same files as a folder, a zip, a tar and a tar.gz, from the first row to the last, in
turns with decode and predict in as many threads and processes as cores.
*size*: `chestxray score` of 100 to 100,000 files, real ones again and again under other names.
*ray*: `chestxray score` of one folder here and on a Ray of this machine, on one core and on all.

Does not: read from a slow disk or a network; all files are in the page cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import archive_page
import page as pages
from limit import InProcessLimit
from machine import CORES, REPOSITORY
from measurement import Row, median_of
from radiographs import SHARED, Radiographs, radiographs
from reliability import write_section

from chestxray.archive.run import Tally, score
from chestxray.assessment import Choices, read_bundles

sys.path.append(str(REPOSITORY / "tests"))

REPORT = REPOSITORY / "docs" / "reports" / "archive.json"
CHESTXRAY = Path(sys.executable).with_name("chestxray")

SIZES = (100, 1_000, 10_000, 100_000)
N_IN_TURNS, N_ON_RAY = 1_000, 4_000
ROUNDS, SECONDS = 3, 5.0
PER_FOLDER = 1_000


def spread(files: Sequence[Path], n: int, folder: Path) -> Path:
    """``n`` files in folders of ``PER_FOLDER``: hard links to ``files``, again and again."""
    for number in range(n):
        below = folder / f"{number // PER_FOLDER:04}"
        if number % PER_FOLDER == 0:
            below.mkdir(parents=True)
        source = files[number % len(files)]
        (below / f"{number:06}{source.suffix}").hardlink_to(source)
    return folder


def packed(folder: Path) -> dict[str, Path]:
    """The folder, and its files in a zip, a tar and a tar.gz beside it."""
    beside = {kind: folder.with_name(f"{folder.name}.{kind}") for kind in ("zip", "tar", "tar.gz")}
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with (
        zipfile.ZipFile(beside["zip"], "w", zipfile.ZIP_DEFLATED) as as_zip,
        tarfile.open(beside["tar"], "w") as as_tar,
        tarfile.open(beside["tar.gz"], "w:gz") as as_gz,
    ):
        for file in files:
            as_zip.write(file, file.name)
            for tar in (as_tar, as_gz):
                tar.inodes = {}  # type: ignore[attr-defined] # a file again, not a link to the last
                tar.add(file, file.name)
    return {"folder": folder} | beside


def limit(of: Sequence[Radiographs], folder: Path, *, quick: bool) -> dict[str, Any]:
    """A row for each kind of file and of archive, and for each kind's limit."""
    rounds, seconds, n = (1, 0.5, 40) if quick else (ROUNDS, SECONDS, N_IN_TURNS)
    cases: dict[tuple[str, str], Callable[[], Row]] = {}
    with InProcessLimit() as bound:
        for files in of:
            for kind, source in packed(spread(files.paths, n, folder / files.kind)).items():
                cases[files.kind, kind] = lambda f=files, k=kind, s=source: _in_process(f, k, s, n)
            cases[files.kind, "threads"] = lambda f=files: bound.in_threads(f, seconds)
            cases[files.kind, "processes"] = lambda f=files: bound.in_processes(f, seconds)
        found: dict[tuple[str, str], list[Row]] = {case: [] for case in cases}
        for _ in range(rounds):
            for case, call in cases.items():
                found[case].append(call())
    rows = [
        asdict(median_of(rows)) | {"on": kind, "what": what} for (kind, what), rows in found.items()
    ]
    return {"rows": rows, "n": n, "rounds": rounds, "files": {f.kind: f.facts() for f in of}}


def _in_process(files: Radiographs, kind: str, source: Path, n: int) -> Row:
    first_s = last_s = cpu_s = 0.0

    def watch(tally: Tally) -> None:
        nonlocal first_s, last_s, cpu_s
        last_s = time.perf_counter()
        if tally.n_done <= 1:
            first_s, cpu_s = last_s, time.process_time()

    tally = score(
        str(source),
        source.with_name("rows.csv"),
        bundles=read_bundles([]),
        choices=Choices(),
        threads=CORES,
        watch=watch,
    )
    if tally.n_judged < n:
        sys.exit(f"archive: only {tally.n_judged} of {n} files are judged: that costs less")
    return Row(
        "archive",
        kind,
        files.kind,
        n - 1,
        per_s=(n - 1) / (last_s - first_s),
        cpu_ms=(time.process_time() - cpu_s) / (n - 1) * 1000,
    )


def size(of: Sequence[Radiographs], folder: Path, *, quick: bool) -> dict[str, Any]:
    """What a run of the command takes, for each number of small files."""
    (small,) = [files for files in of if files.kind == "small"]
    sizes = SIZES[:2] if quick else SIZES
    start, *runs = [
        _command(spread(small.paths, n, folder / str(n)), n, folder / f"{n}.csv")
        for n in (1, *sizes)
    ]
    return {"start": start, "runs": runs, "files": {"small": small.facts()}}


def ray(of: Sequence[Radiographs], folder: Path, *, quick: bool) -> dict[str, Any]:
    """What a run takes here and on Ray, on one core and on all."""
    (small,) = [files for files in of if files.kind == "small"]
    n = 200 if quick else N_ON_RAY
    source = spread(small.paths, n, folder / "ray")
    runs = []
    for cores in sorted({1, CORES}):
        runs.append(_command(source, n, folder / "here.csv", cores=cores) | {"where": "here"})
        with _ray_of(cores) as address:
            there = _command(source, n, folder / "ray.csv", "--ray", address)
        runs.append(there | {"where": "Ray", "cores": cores})
        same = (folder / "here.csv").read_bytes() == (folder / "ray.csv").read_bytes()
        runs[-1]["same_rows"] = same
    return {"runs": runs, "files": {"small": small.facts()}}


def _command(source: Path, n: int, out: Path, *options: str, cores: int = CORES) -> dict[str, Any]:
    """One run of ``chestxray score``; Linux counts the time and memory of its process."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        [
            "/usr/bin/taskset",
            "-c",
            f"0-{cores - 1}",
            CHESTXRAY,
            "score",
            source,
            "--out",
            out,
            *options,
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, status, used = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"archive: `chestxray score` ended with {os.waitstatus_to_exitcode(status)}")
    return {
        "n": n,
        "cores": cores,
        "wall_s": time.perf_counter() - begun,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss * 1024 / 1e6,
    }


@contextmanager
def _ray_of(cores: int) -> Iterator[str]:
    from factories.ray_cluster import ray_cluster  # noqa: PLC0415 - needs the extra

    with ray_cluster(cores) as cluster:
        yield cluster.address


PARTS: dict[str, Callable[..., dict[str, Any]]] = {
    part.__name__: part for part in (limit, size, ray)
}


def main() -> None:
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--only", choices=PARTS, action="append", help="[all]")
    asked.add_argument("--out", type=Path, default=REPORT, help="JSON report to fill [committed]")
    asked.add_argument("--quick", action="store_true", help="a short run, to try the programs")
    given = asked.parse_args()
    data = SHARED if SHARED.is_dir() else None
    for name in given.only or PARTS:
        begun = time.monotonic()
        # Beside the files, so that they can be linked to.
        with radiographs(data) as files, tempfile.TemporaryDirectory(dir=_beside(files)) as folder:
            found = PARTS[name](files, Path(folder), quick=given.quick) | {"quick": given.quick}
        write_section(given.out, name, found, took_s=time.monotonic() - begun)
        print(archive_page.PARTS[name]({name: found}))
    if given.out == REPORT and not given.only:
        pages.write()


def _beside(files: Sequence[Radiographs]) -> Path:
    """A folder of the same file system that is nobody's data."""
    path = files[0].paths[0]
    return REPOSITORY.parent if path.is_relative_to(REPOSITORY.parent) else path.parent


if __name__ == "__main__":
    main()
