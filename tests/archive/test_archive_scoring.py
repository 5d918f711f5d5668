"""A row says of a file what the service would, whoever its neighbours are."""

import hashlib
import io
import json
import tarfile
import threading
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from chestxray.archive.files import Item, Walk, find
from chestxray.archive.rows import Row
from chestxray.archive.scoring import AHEAD, Job, Part, Scorer
from chestxray.imaging import Limits
from factories.command_line import chestxray


def scored(job: Job, items: list[Item], threads: int = 2) -> list[Row]:
    with closing(Scorer(job, threads=threads)) as scorer:
        return list(scorer.rows(Part(0, tuple(items))))


def stored(files: dict[str, bytes], at: Path, kind: str) -> Path:
    """The files in a folder, a zip or a tar at ``at``."""
    if kind == "folder":
        for name, data in files.items():
            at.mkdir(exist_ok=True)
            (at / name).write_bytes(data)
    elif kind == "zip":
        with zipfile.ZipFile(at := at.with_suffix(".zip"), "w") as zipped:
            for name, data in files.items():
                zipped.writestr(name, data)
    else:
        with tarfile.open(at := at.with_suffix(".tar"), "w") as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return at


def found(source: Path) -> list[Item]:
    return list(find(str(source), Walk(source.parent / "out.csv")))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
@pytest.mark.parametrize("input_check", ["refuse", "warn"])
def test_a_row_says_what_predict_says(
    kind, input_check, mixed, tiny, tiny_folder, tmp_path, monkeypatch, capsys
) -> None:
    folder = stored(mixed, tmp_path / "files", "folder")
    job = Job(tiny, "screening", input_check)
    source = stored(mixed, tmp_path / "files", kind)
    rows = {row.path.rpartition("/")[2]: row for row in scored(job, found(source))}
    assert set(rows) == set(mixed)

    files = [str(folder / name) for name in mixed]
    options = ["--operating-point", "screening", "--input-check", input_check]
    answer = chestxray("predict", *files, "--json", *options, "--bundle", tiny_folder)
    elements = [json.loads(line) for line in answer.out.splitlines()]
    assert len(elements) == len(mixed)
    outcomes = set()
    for element in elements:
        name = Path(element["filename"]).name
        row = rows[name]
        said = element.get("prediction")
        outcomes.add(row.error_code)
        assert row.sha256 == hashlib.sha256(mixed[name]).hexdigest()
        assert (row.operating_point, row.bundle_sha256) == ("screening", tiny.sha256)
        if said is None:
            assert row.error_code == element["error"]["code"]
            assert (row.label, row.probability, row.uncertain) == (None, None, None)
            continue
        assert (row.label, row.probability, row.uncertain, row.error_code) == (
            *(said["label"], said["probability"], said["uncertain"]),
            None,
        )
        check = said["input_check"]
        assert (row.input_check, row.input_check_score) == (
            "accepted" if check["accepted"] else "refused",
            check["score"],
        )
    assert outcomes >= {None, "empty_file", "truncated_file", "unsupported_format", "wrong_view"}
    assert ("not_a_chest_radiograph" in outcomes) == (input_check == "refuse")
    assert rows["noise.png"].input_check == "refused"
    assert rows["notes.txt"].input_check is None


def test_a_row_depends_on_neither_threads_nor_neighbours(mixed, tiny, tmp_path) -> None:
    job = Job(tiny, "balanced", "refuse")
    items = found(stored(mixed, tmp_path / "files", "folder"))
    rows = scored(job, items, threads=1)
    assert [row.path for row in rows] == [item.path for item in items]
    for threads in (2, 7):
        assert scored(job, items, threads) == rows
    assert scored(job, items[::-1] * 3, threads=3) == rows[::-1] * 3
    assert [row for item in items for row in scored(job, [item], 1)] == rows


def test_zips_follow_one_another_while_threads_still_read_the_one_before(
    mixed, tiny, tmp_path
) -> None:
    for n in range(12):
        stored({name: mixed[name] for name in ("0.png", "a.jpeg")}, tmp_path / f"{n}", "zip")
    rows = scored(Job(tiny, "balanced", "refuse"), found(tmp_path), threads=2)
    assert len(rows) == 24
    assert {row.error_code for row in rows} == {None}


def test_a_file_over_the_limit_has_no_sha256(tiny, tmp_path) -> None:
    (tmp_path / "large.png").touch()
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(Limits().max_bytes + 1)
    (row,) = scored(Job(tiny, "balanced", "refuse"), found(tmp_path), threads=1)
    assert (row.error_code, row.sha256) == ("too_many_bytes", None)


def test_what_is_missing_or_damaged_is_a_row(tiny, tmp_path) -> None:
    items = [Item("x.zip", "x.zip", "damaged"), Item("gone.png", str(tmp_path / "gone.png"))]
    rows = scored(Job(tiny, "balanced", "refuse"), items)
    assert [(row.path, row.error_code, row.sha256) for row in rows] == [
        ("x.zip", "damaged_file", None),
        ("gone.png", "cannot_open", None),
    ]


def test_files_are_read_only_so_far_ahead(mixed, tiny, tmp_path, monkeypatch) -> None:
    """A part of any size holds only some files in memory."""
    items = found(stored({"0.png": mixed["0.png"]}, tmp_path / "files", "folder")) * 100
    with closing(Scorer(Job(tiny, "balanced", "refuse"), threads=2)) as scorer:
        asked = 0
        original = scorer._reader.loader

        def counting(item: Item):
            nonlocal asked
            asked += 1
            return original(item)

        monkeypatch.setattr(scorer._reader, "loader", counting)
        for done, _ in enumerate(scorer.rows(Part(0, tuple(items)))):
            assert asked <= done + 1 + AHEAD * 2
        assert asked == 100


def test_a_scorer_leaves_no_thread_behind(mixed, tiny, tmp_path) -> None:
    items = found(stored(mixed, tmp_path / "files", "folder"))
    before = threading.active_count()
    with closing(Scorer(Job(tiny, "balanced", "refuse"), threads=3)) as scorer:
        next(scorer.rows(Part(0, tuple(items))))
    assert threading.active_count() == before
