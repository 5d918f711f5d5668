"""The folder of parts: what is begun goes on, and nothing else is taken for it."""

import errno
import fcntl
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from chestxray.archive import work
from chestxray.archive.rows import Row, header
from chestxray.archive.scoring import Job, Part
from chestxray.archive.work import open_work
from chestxray.assessment import Choices
from chestxray.errors import ConfigError, EmptyDatasetError
from chestxray.inference import Bundle


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "PART_FILES", 3)


@pytest.fixture
def source(tmp_path: Path) -> str:
    folder = tmp_path / "archive"
    folder.mkdir()
    for n in range(10):
        (folder / f"{n}.png").write_bytes(b"%d" % n)
    return str(folder)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.csv"


def rows(part: Part) -> list[Row]:
    return [
        Row(i.path, *[None] * 3, "x", *[None] * 3, "damaged_file", None, "m", "b")
        for i in part.items
    ]


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_parts_hold_every_file_once_in_a_fixed_order(source, out, job) -> None:
    with open_work(source, out, job) as begun:
        parts = list(begun.parts_to_do())
        assert begun.n_files == 10
        assert begun.n_parts == 4
        assert [part.number for part in parts] == [0, 1, 2, 3]
        assert [len(part.items) for part in parts] == [3, 3, 3, 1]
        assert len({item.path for part in parts for item in part.items}) == 10
        assert list(begun.parts_to_do()) == parts


def test_the_plan_holds_whatever_the_archive_becomes(source, out, job) -> None:
    with open_work(source, out, job) as begun:
        planned = list(begun.parts_to_do())
        begun.keep(1, rows(planned[1]))
    (Path(source) / "0.png").unlink()
    (Path(source) / "new.png").touch()
    with open_work(source, out, job) as begun:
        assert list(begun.parts_to_do()) == [planned[n] for n in (0, 2, 3)]
        assert begun.outcomes_done() == {"damaged_file": 3}


def test_a_file_of_several_bundles_counts_once_as_answered_if_any_answered(
    source, out, two
) -> None:
    with open_work(source, out, two) as begun:
        part = next(begun.parts_to_do())
        row = rows(part)[0]
        judged, refused = row._replace(error_code=None), row._replace(error_code="wrong_view")
        begun.keep(0, [judged, judged, judged, refused, row, refused])
        assert begun.outcomes_done() == {"": 2, "damaged_file": 1}


def test_the_whole_has_all_parts_in_order_whoever_was_first_and_no_folder_stays(
    source, out, job
) -> None:
    with open_work(source, out, job) as begun:
        parts = list(begun.parts_to_do())
        for part in reversed(parts):
            begun.keep(part.number, rows(part))
            assert not out.exists()
        begun.make_whole(out)
    lines = out.read_text().splitlines()
    assert lines[0] == header().strip()
    assert [line.split(",")[0] for line in lines[1:]] == [i.path for p in parts for i in p.items]
    assert not out.with_name("out.csv.parts").exists()


def test_a_part_that_breaks_off_is_not_there(source, out, job) -> None:
    def broken():
        yield rows(parts[0])[0]
        raise OSError(errno.ENOSPC, "no space")

    with open_work(source, out, job) as begun:
        parts = list(begun.parts_to_do())
        with pytest.raises(OSError, match="no space"):
            begun.keep(0, broken())
        assert list(begun.parts_to_do()) == parts
        assert not begun.outcomes_done()


OTHERWISE: dict[str, Callable[[Job], Job]] = {
    "bundle": lambda job: with_bundles(
        job, tiny=replace(job.bundles["tiny"], sha256="0" * 64), other=job.bundles["other"]
    ),
    "name of a bundle": lambda job: with_bundles(
        job, tiny=job.bundles["tiny"], renamed=job.bundles["other"]
    ),
    "order of the bundles": lambda job: with_bundles(
        job, other=job.bundles["other"], tiny=job.bundles["tiny"]
    ),
    "one bundle less": lambda job: with_bundles(job, tiny=job.bundles["tiny"]),
    "point": lambda job: replace(job, choices=Choices("screening")),
    "input check": lambda job: replace(job, choices=Choices(input_check="warn")),
    "population": lambda job: replace(job, choices=Choices(population="warn")),
    "acquisition": lambda job: replace(job, choices=Choices(acquisition="warn")),
}


def with_bundles(job: Job, **bundles: Bundle) -> Job:
    return replace(job, bundles=bundles)


@pytest.mark.parametrize("otherwise", ["source", "directory", *OTHERWISE])
def test_what_was_begun_otherwise_is_refused_and_left_alone(
    otherwise, source, out, two, tmp_path, monkeypatch
) -> None:
    job = two
    with open_work(source, out, job) as begun:
        begun.keep(0, rows(next(begun.parts_to_do())))
    before = contents(tmp_path / "out.csv.parts")
    if otherwise == "source":
        source = str(tmp_path)
    elif otherwise == "directory":
        monkeypatch.chdir(tmp_path)
    else:
        job = OTHERWISE[otherwise](job)
    with (
        pytest.raises(ConfigError, match=r"out\.csv\.parts holds the begun scoring of something"),
        open_work(source, out, job),
    ):
        pytest.fail("it was opened")
    assert contents(tmp_path / "out.csv.parts") == before


def test_only_one_may_be_at_it(source, out, job) -> None:
    with (
        open_work(source, out, job),
        pytest.raises(ConfigError, match="another process"),
        open_work(source, out, job),
    ):
        pytest.fail("it was opened twice")
    with open_work(source, out, job) as begun:
        assert begun.n_files == 10


def test_a_run_killed_while_it_planned_plans_again(source, out, job, tmp_path) -> None:
    folder = tmp_path / "out.csv.parts"
    folder.mkdir()
    (folder / "plan.tmp").write_text('["half a li')
    (folder / "plan.jsonl").write_text('["an older plan", "x", "file", 0]\n')
    with open_work(source, out, job) as begun:
        assert sum(len(part.items) for part in begun.parts_to_do()) == 10


def test_parts_left_by_a_run_killed_in_its_last_moment_are_not_taken_for_done(
    source, out, job, tmp_path
) -> None:
    """It had removed what says whose they are."""
    with open_work(source, out, job) as begun:
        begun.keep(0, rows(next(begun.parts_to_do())))
    (tmp_path / "out.csv.parts/job.json").unlink()
    with open_work(source, out, replace(job, choices=Choices("screening"))) as begun:
        assert len(list(begun.parts_to_do())) == 4


@pytest.mark.parametrize("what", ["nothing there", "no file"])
def test_where_there_is_no_file_nothing_is_left_behind(what, out, job, tmp_path) -> None:
    empty = tmp_path / "empty"
    error: type[Exception] = ConfigError
    if what == "no file":
        empty.mkdir()
        error = EmptyDatasetError
    with pytest.raises(error), open_work(str(empty), out, job):
        pytest.fail("it was opened")
    assert not out.with_name("out.csv.parts").exists()


def test_what_systems_left_behind_is_counted_for_whoever_goes_on(source, out, job) -> None:
    for name in (".DS_Store", "Thumbs.db"):
        (Path(source) / name).touch()
    for _ in range(2):
        with open_work(source, out, job) as begun:
            assert (begun.n_files, begun.n_litter) == (10, 2)


def test_nothing_but_what_systems_left_behind_is_no_archive(out, job, tmp_path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / ".DS_Store").touch()
    with (
        pytest.raises(EmptyDatasetError, match="holds no file but 1 that systems leave behind"),
        open_work(str(folder), out, job),
    ):
        pytest.fail("it was opened")


def test_the_plan_keeps_any_name(out, job, tmp_path) -> None:
    names = ["new\nline.png", "\udcff.png", '"q",', "\ufeffx", "r\r"]
    folder = tmp_path / "archive"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    with open_work(str(folder), out, job) as begun:
        found = [item for part in begun.parts_to_do() for item in part.items]
        assert {item.path for item in found} == {f"{folder}/{name}" for name in names}
        plan = (tmp_path / "out.csv.parts/plan.jsonl").read_bytes()
        assert plan.count(b"\n") == len(names)
        assert all(json.loads(line) for line in plan.splitlines())


def test_the_lock_goes_with_its_holder(source, out, job, tmp_path) -> None:
    with suppress(KeyboardInterrupt), open_work(source, out, job):
        raise KeyboardInterrupt
    with (tmp_path / "out.csv.parts/lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
