"""An archive in, one file out, whenever it is killed."""

import csv
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from chestxray.archive import work
from chestxray.archive.run import REFUSALS, Tally, score
from chestxray.archive.scoring import Job
from chestxray.assessment import Choices
from chestxray.errors import ConfigError, UnknownOperatingPointError
from factories.requests import radiograph_png


def rows_of(file: Path) -> list[dict[str, object]]:
    """The rows, sorted by their paths, with their types."""
    if file.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        return sorted(parquet.read_table(file).to_pylist(), key=lambda row: row["path"])
    with file.open(newline="") as lines:
        rows: list[dict[str, object]] = []
        for cells in csv.DictReader(lines):
            row: dict[str, object] = {key: cell or None for key, cell in cells.items()}
            for key in ("probability", "input_check_score"):
                row[key] = float(cells[key]) if cells[key] else None
            row["uncertain"] = {"": None, "true": True, "false": False}[cells["uncertain"]]
            rows.append(row)
    return sorted(rows, key=lambda row: str(row["path"]))


def links(folder: Path, n: int, data: dict[str, bytes]) -> Path:
    """A folder with ``n`` names for the files of ``data``."""
    folder.mkdir()
    originals = []
    for name, content in data.items():
        original = folder / name
        original.write_bytes(content)
        originals.append(original)
    for number in range(n - len(originals)):
        (folder / f"{number:05}.png").hardlink_to(originals[number % len(originals)])
    return folder


def scored(source: Path, out: Path, job: Job, **settings: Any) -> Tally:
    quiet = {"watch": lambda _: None}
    return score(str(source), out, bundles=job.bundles, choices=job.choices, **quiet | settings)


@pytest.fixture
def archive(tmp_path: Path, mixed: dict[str, bytes]) -> Path:
    return links(tmp_path / "archive", len(mixed), mixed)


def test_csv_and_parquet_have_the_same_rows(archive, two, tmp_path) -> None:
    files = [tmp_path / "out.csv", tmp_path / "out.parquet"]
    for out in files:
        scored(archive, out, two, threads=2)
    rows = rows_of(files[0])
    assert len(rows) == 2 * len(list(archive.iterdir()))
    assert rows == rows_of(files[1])
    assert {type(row["probability"]) for row in rows} == {float, type(None)}


def test_the_tally_tells_judged_refused_and_unreadable_apart(archive, job, tmp_path) -> None:
    told: list[int] = []
    tally = scored(
        archive, tmp_path / "out.csv", job, watch=lambda tally: told.append(tally.n_done)
    )
    rows = rows_of(tmp_path / "out.csv")
    assert tally.n_judged == sum(row["label"] is not None for row in rows)
    assert tally.n_refused == sum(row["error_code"] in REFUSALS for row in rows) == 3
    assert tally.n_unreadable == 4
    assert tally.n_files == tally.n_done == len(rows) == 14
    assert told == list(range(15))


def test_with_several_bundles_a_file_is_judged_if_any_judges_it(archive, two, tmp_path) -> None:
    """``other`` knows adults alone, and refuses the child in ``b.dcm``, whom ``tiny`` judges."""
    told: list[int] = []
    tally = scored(
        archive, tmp_path / "out.csv", two, watch=lambda tally: told.append(tally.n_done)
    )
    rows = rows_of(tmp_path / "out.csv")
    judged: dict[object, bool] = {}
    for row in rows:
        judged[row["path"]] = judged.get(row["path"], False) or row["label"] is not None
    assert tally.n_judged == sum(judged.values())
    assert judged[f"{archive}/b.dcm"]
    assert [row["error_code"] for row in rows if row["path"] == f"{archive}/b.dcm"] == [
        None,
        "outside_population",
    ]
    assert tally.n_files == tally.n_done == len(judged) == 14
    assert tally.n_unreadable == 4
    assert told == list(range(15))


@pytest.mark.parametrize("asked", ["job", "two"])
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_run_that_breaks_off_goes_on_and_ends_the_same(
    suffix, asked, archive, tmp_path, monkeypatch, request
) -> None:
    job = request.getfixturevalue(asked)
    monkeypatch.setattr(work, "PART_FILES", 4)
    out = tmp_path / f"out{suffix}"
    out.write_bytes(b"an older one")

    class Stopped(Exception):  # noqa: N818 - no error
        pass

    def stop(tally: Tally) -> None:
        if tally.n_done - tally.n_before == 6:
            raise Stopped

    with pytest.raises(Stopped):
        scored(archive, out, job, watch=stop)
    assert out.read_bytes() == b"an older one"
    before: list[int] = []
    tally = scored(archive, out, job, watch=lambda tally: before.append(tally.n_before))
    assert set(before) == {4}
    assert (tally.n_done, tally.n_files) == (14, 14)
    undisturbed = tmp_path / f"undisturbed{suffix}"
    same = scored(archive, undisturbed, job)
    assert tally.outcomes == same.outcomes
    assert rows_of(out) == rows_of(undisturbed)
    assert not list(tmp_path.glob("*.parts"))


def test_wrong_use_is_told_before_anything_is_made(archive, two, tmp_path) -> None:
    for name, point, error in (
        ("out.xlsx", None, ConfigError),
        ("out", None, ConfigError),
        ("out.csv", "no-such-point", UnknownOperatingPointError),
    ):
        with pytest.raises(error):
            scored(archive, tmp_path / name, replace(two, choices=Choices(point)))
    assert [file.name for file in tmp_path.iterdir()] == ["archive"]


# --- killed, in processes of their own


@pytest.fixture
def bundle_options(tiny_folder, other_folder) -> list[str]:
    """The bundles of ``two``, as ``--bundle`` takes them."""
    return [f"tiny={tiny_folder}", f"other={other_folder}"]


KILLED_AT_EACH_STEP = """
import os, signal, sys, traceback
from pathlib import Path
from chestxray.archive import work
from chestxray.archive.run import score
from chestxray.assessment import Choices, named, read_bundles

source, out, whole = map(Path, sys.argv[1:4])
bundles = read_bundles(map(named, sys.argv[4:]))
work.PART_FILES = 3
if out.suffix == ".parquet":
    import pyarrow.parquet  # once, and not in every child

def run(kill_at):
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    step = 0
    def kill(event, args):
        nonlocal step
        writes = event == "open" and args[1] not in (None, "r", "rb") and ".parts" in str(args[0])
        if writes or event in {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "fcntl.flock"}:
            if step == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            step += 1
    sys.addaudithook(kill)
    try:
        score(str(source), out, bundles=bundles, choices=Choices(), watch=lambda _: None)
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)

step = kept = 0
ended = -signal.SIGKILL
while ended:
    out.write_bytes(b"old")
    ended = run(step)
    assert ended in (0, -signal.SIGKILL), ended
    now = out.read_bytes()
    kept += now == b"old"
    assert now == b"old" or now == whole.read_bytes(), step
    if ended:
        assert run(-1) == 0, step
    assert out.read_bytes() == whole.read_bytes(), step
    assert not Path(f"{out}.parts").exists()
    step += 1
print(step, kept)
"""


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_killed_before_any_step_on_the_disk_it_ends_the_same(
    suffix, mixed, two, bundle_options, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(work, "PART_FILES", 3)
    archive = links(tmp_path / "archive", 8, {name: mixed[name] for name in ("0.png", "cut.png")})
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    scored(archive, whole, two)
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EACH_STEP, archive, out, whole, *bundle_options],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    steps, kept = map(int, done.stdout.split())
    assert steps > kept > 10


COMMAND_IN_SMALL_PARTS = """
from chestxray import cli
from chestxray.archive import work
work.PART_FILES = 16
cli.main()
"""


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_the_command_killed_at_random_moments_ends_the_same(
    suffix, mixed, two, bundle_options, tmp_path
) -> None:
    archive = links(tmp_path / "archive", 600, mixed)
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    scored(archive, whole, two, threads=2)
    program = [sys.executable, "-c", COMMAND_IN_SMALL_PARTS]
    arguments = ["score", archive, "--out", out]
    for option in bundle_options:
        arguments += ["--bundle", option]
    parts = tmp_path / f"out{suffix}.parts"

    def n_parts() -> int:
        return len(list(parts.glob("0*.csv")))

    rng = Random(suffix)
    for _ in range(4):
        until = n_parts() + rng.randrange(6)
        with subprocess.Popen([*program, *arguments], stderr=subprocess.PIPE) as process:
            while process.poll() is None and (n_parts() < until or not parts.exists()):
                time.sleep(0.005)
            time.sleep(rng.random() / 20)  # any moment within a part
            process.kill()
            assert process.wait() in {-9, 3}
            assert process.stderr is not None
            assert process.stderr.read() == b""
    ended = subprocess.run([*program, *arguments], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (3, b"")
    assert rows_of(out) == rows_of(whole)
    assert len(rows_of(out)) == 2 * 600
    assert not parts.exists()


# --- memory

PEAK = """
import resource, sys
from pathlib import Path
from chestxray.archive.run import score
from chestxray.assessment import Choices, named, read_bundles
source, out, bundle = sys.argv[1:]
asked = {"bundles": read_bundles([named(bundle)]), "choices": Choices()}
score(source, Path(out), **asked, threads=2, watch=lambda _: None)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mib(source: Path, out: Path, bundle: Path) -> float:
    done = subprocess.run(
        [sys.executable, "-c", PEAK, source, out, bundle],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    return float(done.stdout)


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_memory_does_not_grow_with_the_archive(kind, tiny_folder, tmp_path) -> None:
    """Twenty times the files: if 1 kB were kept of each, that would be 11 MiB."""
    pictures = {"0.png": radiograph_png(0, 32), "empty.png": b""}
    few, many = (make_archive(kind, tmp_path / str(n), n, pictures) for n in (600, 12_000))
    lesser = peak_mib(few, tmp_path / "few.csv", tiny_folder)
    greater = peak_mib(many, tmp_path / "many.csv", tiny_folder)
    assert greater - lesser < 7


def make_archive(kind: str, at: Path, n: int, pictures: dict[str, bytes]) -> Path:
    """One picture and ``n`` files that are empty, so that thousands are read in seconds."""
    at.mkdir()
    for name, data in pictures.items():
        (at / name).write_bytes(data)
    if kind == "folder":
        for number in range(n):
            (at / f"{number:05}").touch()
        return at
    file = at / "x.tar"
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        tar.add(at / "0.png", "0.png")
        for number in range(n):
            tar.addfile(tarfile.TarInfo(f"{number:05}.png"))
            tar.members.clear()  # type: ignore[attr-defined]
    return file
