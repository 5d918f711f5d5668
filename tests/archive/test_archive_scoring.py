"""A row says of a file what the service would, whoever its neighbours are."""

import gc
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from chestxray.archive.files import Item, Walk, find
from chestxray.archive.rows import Row
from chestxray.archive.scoring import Job, Part, Scorer
from chestxray.assessment import Choices
from chestxray.assessment.assess import AHEAD
from chestxray.errors import UnknownOperatingPointError
from chestxray.imaging import Limits, Radiograph
from chestxray.inference.bundle import read_bundle
from factories import dicom_files
from factories.bundles import write_tiny_bundle
from factories.command_line import chestxray


def scored(job: Job, items: list[Item], threads: int = 2) -> list[Row]:
    """The rows of all items, one after the other."""
    with closing(Scorer(job, threads=threads)) as scorer:
        return [row for rows in scorer.rows(Part(0, tuple(items))) for row in rows]


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
    job = Job({"tiny": tiny}, Choices("screening", input_check))
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
        assert (row.operating_point, row.model) == ("screening", "tiny")
        assert row.bundle_sha256 == tiny.sha256
        if said is None:
            assert row.error_code == element["error"]["code"]
            assert (row.label, row.probability, row.uncertain) == (None, None, None)
            continue
        assert (row.label, row.probability, row.uncertain, row.error_code) == (
            *(said["label"], said["probability"], said["uncertain"]),
            None,
        )
        assert (row.warnings or "") == "; ".join(said["warnings"])
        check = said["input_check"]
        assert (row.input_check, row.input_check_score) == (
            "accepted" if check["accepted"] else "refused",
            check["score"],
        )
    assert outcomes >= {None, "empty_file", "truncated_file", "unsupported_format", "wrong_view"}
    assert ("not_a_chest_radiograph" in outcomes) == (input_check == "refuse")
    assert rows["noise.png"].input_check == "refused"
    assert rows["notes.txt"].input_check is None


def test_a_row_depends_on_neither_threads_nor_neighbours(mixed, job, tmp_path) -> None:
    items = found(stored(mixed, tmp_path / "files", "folder"))
    rows = scored(job, items, threads=1)
    assert [row.path for row in rows] == [item.path for item in items]
    for threads in (2, 7):
        assert scored(job, items, threads) == rows
    assert scored(job, items[::-1] * 3, threads=3) == rows[::-1] * 3
    assert [row for item in items for row in scored(job, [item], 1)] == rows


def test_zips_follow_one_another_while_threads_still_read_the_one_before(
    mixed, job, tmp_path
) -> None:
    for n in range(12):
        stored({name: mixed[name] for name in ("0.png", "a.jpeg")}, tmp_path / f"{n}", "zip")
    rows = scored(job, found(tmp_path), threads=2)
    assert len(rows) == 24
    assert {row.error_code for row in rows} == {None}


def test_a_file_over_the_limit_has_no_sha256(job, tmp_path) -> None:
    (tmp_path / "large.png").touch()
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(Limits().max_bytes + 1)
    (row,) = scored(job, found(tmp_path), threads=1)
    assert (row.error_code, row.sha256) == ("too_many_bytes", None)


def test_what_is_missing_or_damaged_is_a_row(job, tmp_path) -> None:
    items = [Item("x.zip", "x.zip", "damaged"), Item("gone.png", str(tmp_path / "gone.png"))]
    rows = scored(job, items)
    assert [(row.path, row.error_code, row.sha256) for row in rows] == [
        ("x.zip", "damaged_file", None),
        ("gone.png", "cannot_open", None),
    ]


def test_files_are_read_only_so_far_ahead(mixed, job, tmp_path, monkeypatch) -> None:
    """A part of any size holds only some files in memory."""
    items = found(stored({"0.png": mixed["0.png"]}, tmp_path / "files", "folder")) * 100
    with closing(Scorer(job, threads=2)) as scorer:
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


def test_a_scorer_leaves_no_thread_behind(mixed, job, tmp_path) -> None:
    items = found(stored(mixed, tmp_path / "files", "folder"))
    before = threading.active_count()
    with closing(Scorer(job, threads=3)) as scorer:
        next(scorer.rows(Part(0, tuple(items))))
    assert threading.active_count() == before


def test_what_is_refused_leaves_memory_with_its_row(mixed, job, tmp_path) -> None:
    """At once, and not when Python collects garbage: a picture may have 160 MB."""
    items = found(stored({"noise.png": mixed["noise.png"]}, tmp_path / "files", "folder")) * 20
    with closing(Scorer(job, threads=2)) as scorer:
        gc.collect()
        before = n_radiographs()
        gc.disable()
        try:
            for rows in scorer.rows(Part(0, tuple(items))):
                assert rows[0].error_code == "not_a_chest_radiograph"
            assert n_radiographs() == before
        finally:
            gc.enable()


def n_radiographs() -> int:
    return sum(type(thing) is Radiograph for thing in gc.get_objects())


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_each_bundle_says_of_a_file_what_it_says_alone(kind, mixed, two, tmp_path) -> None:
    items = found(stored(mixed, tmp_path / "files", kind))
    rows = scored(two, items)
    assert [(row.path, row.model) for row in rows] == [
        (item.path, name) for item in items for name in ("tiny", "other")
    ]
    for n, (name, bundle) in enumerate(two.bundles.items()):
        assert rows[n::2] == scored(replace(two, bundles={name: bundle}), items)
        assert {row.bundle_sha256 for row in rows[n::2]} == {bundle.sha256}
    assert {row.label for row in rows[::2]} == {"NORMAL", "PNEUMONIA", None}
    assert {row.label for row in rows[1::2]} <= {"DRY", "EFFUSION", None}


def test_each_bundle_has_its_own_default_operating_point(mixed, tiny, tmp_path) -> None:
    folder = write_tiny_bundle(tmp_path / "bundle", default_operating_point="rule_in")
    job = Job({"tiny": tiny, "strict": read_bundle(folder)}, Choices())
    rows = scored(job, found(stored(mixed, tmp_path / "files", "folder")))
    assert {row.operating_point for row in rows[::2]} == {"balanced"}
    assert {row.operating_point for row in rows[1::2]} == {"rule_in"}


def test_the_operating_point_must_be_in_every_bundle(tiny, tmp_path) -> None:
    points = {"rule_in": {"threshold": 0.8, "rule": "chosen for tests"}}
    folder = write_tiny_bundle(tmp_path, operating_points=points, default_operating_point="rule_in")
    bundles = {"tiny": tiny, "one point": read_bundle(folder)}
    Scorer(Job(bundles, Choices("rule_in")), threads=1)
    with pytest.raises(UnknownOperatingPointError):
        Scorer(Job(bundles, Choices("balanced")), threads=1)


def test_a_patient_of_an_age_that_a_bundle_does_not_know_is_refused_or_warned_of(
    two, tmp_path
) -> None:
    """``other`` knows adults, ``tiny`` children."""
    adult = {"adult.dcm": dicom_files.dicom(dicom_files.phantom(12, 96), PatientAge="040Y")}
    items = found(stored(adult, tmp_path / "files", "folder"))
    refused, known = scored(two, items)
    assert (refused.error_code, refused.label) == ("outside_population", None)
    assert (refused.input_check, refused.warnings) == (None, None)
    assert (known.error_code, known.warnings) == (None, None)
    warned, same = scored(replace(two, choices=Choices(population="warn")), items)
    assert warned.error_code is None
    assert warned.label is not None
    assert warned.warnings is not None
    assert "only for patients aged 1 to 5 years" in warned.warnings
    assert same == known


@pytest.mark.parametrize(
    ("attributes", "code"),
    [
        ({"ViewPosition": "LL"}, "wrong_view"),
        ({"BodyPartExamined": "HAND"}, "wrong_body_part"),
        ({"Modality": "CT"}, "wrong_modality"),
    ],
)
def test_an_acquisition_that_a_bundle_does_not_know_is_refused_or_warned_of(
    attributes, code, job, tmp_path
) -> None:
    file = {"x.dcm": dicom_files.dicom(dicom_files.phantom(12, 96), **attributes)}
    items = found(stored(file, tmp_path / "files", "folder"))
    (refused,) = scored(job, items)
    assert (refused.error_code, refused.label) == (code, None)
    (warned,) = scored(replace(job, choices=Choices(acquisition="warn")), items)
    assert warned.error_code is None
    assert warned.label is not None
    assert warned.warnings
