import shutil
from collections import Counter
from pathlib import Path

import pytest

from chestxray.dataset import Labels, Sample, dataset_name, read_dataset
from chestxray.errors import DatasetError, EmptyDatasetError
from factories.datasets import LABELS, write_files, write_labels


def folder_of(tmp_path: Path, *paths: str) -> Path:
    """A data set of these files, each with its own content, and one more file of each truth."""
    return files_in(tmp_path, *paths, "NORMAL/n.png", "PNEUMONIA/p.png")


def files_in(folder: Path, *paths: str) -> Path:
    """A folder of files that differ in content from those of any other folder."""
    return write_files(folder, {path: f"{folder.name}/{path}".encode() for path in paths})


def by_path(samples: list[Sample]) -> dict[str, Sample]:
    return {s.path: s for s in samples}


def labelled(tmp_path: Path, rows: dict[str, str], **more: str) -> Path:
    """A folder of files, each with the label that its row has, and a patient of its own."""
    folder = files_in(tmp_path, *rows)
    write_labels(
        folder,
        [
            {"file": path, "label": label, "patient": f"P{number}"} | more
            for number, (path, label) in enumerate(rows.items())
        ],
    )
    return folder


# A folder without labels.csv.


@pytest.mark.parametrize(
    ("name", "subject", "group"),
    [
        ("person1_bacteria_1.jpeg", "bacteria 1", "bacteria"),
        ("person1000_virus_1681.jpeg", "virus 1000", "virus"),
        ("person447_virus_921_1.jpeg", "virus 447", "virus"),
        ("IM-0115-0001.jpeg", "IM 115", "IM"),
        ("IM-0003-0001-0002.jpeg", "IM 3", "IM"),
        ("NORMAL2-IM-0381-0001.jpeg", "NORMAL2-IM 381", "NORMAL2-IM"),
    ],
)
def test_a_published_name_gives_subject_and_group(tmp_path, name, subject, group):
    found = by_path(read_dataset(folder_of(tmp_path, f"PNEUMONIA/{name}"), LABELS))
    assert found[f"PNEUMONIA/{name}"].subject == subject
    assert found[f"PNEUMONIA/{name}"].group == group


def test_the_same_number_in_two_groups_is_two_people(tmp_path):
    samples = read_dataset(
        folder_of(
            tmp_path,
            "NORMAL/IM-0115-0001.jpeg",
            "NORMAL/NORMAL2-IM-0115-0001.jpeg",
            "PNEUMONIA/person115_bacteria_1.jpeg",
            "PNEUMONIA/person115_virus_2.jpeg",
        ),
        LABELS,
    )
    assert len({s.subject for s in samples if "115" in s.subject}) == 4


def test_radiographs_of_one_number_in_a_group_are_of_one_subject(tmp_path):
    names = ["person23_bacteria_78.jpeg", "person23_bacteria_79.jpeg"]
    samples = read_dataset(folder_of(tmp_path, *(f"PNEUMONIA/{name}" for name in names)), LABELS)
    assert {s.subject for s in samples if "person" in s.path} == {"bacteria 23"}


def test_a_file_of_another_name_is_its_own_subject(tmp_path):
    samples = read_dataset(folder_of(tmp_path, "NORMAL/sub/n.png", "NORMAL/patient7.png"), LABELS)
    assert [(s.subject, s.group) for s in samples] == [(s.path, None) for s in samples]


def test_hidden_files_litter_and_what_is_in_no_label_s_folder_are_not_samples(tmp_path):
    folder = folder_of(
        tmp_path,
        "NORMAL/.DS_Store",
        "NORMAL/.cache/x.png",
        "NORMAL/Thumbs.db",
        "__MACOSX/NORMAL/n.png",
        "README.md",
        "OTHER/o.png",
    )
    assert [s.path for s in read_dataset(folder, LABELS)] == ["NORMAL/n.png", "PNEUMONIA/p.png"]


def test_without_a_table_it_is_told_how_many_files_are_taken_for_patients(tmp_path):
    told: list[str] = []
    folder = folder_of(tmp_path, "NORMAL/IM-0001-0001.png")
    read_dataset(folder, LABELS, say=told.append)
    assert told == [
        f"{folder}: without a labels.csv each of 2 files is taken for a patient of its own"
    ]


def test_a_file_that_cannot_be_opened_is_left_out_and_told(tmp_path):
    told: list[str] = []
    folder = folder_of(tmp_path)
    (folder / "NORMAL" / "IM-0001-0001.png").symlink_to("/proc/self/mem")
    assert len(read_dataset(folder, LABELS, say=told.append)) == 2
    assert told[-1].startswith(
        f"{folder}: files that cannot be opened, left out: 1 (NORMAL/IM-0001-0001.png: "
    )


def test_a_label_without_a_file_that_can_be_opened_is_an_error(tmp_path):
    folder = files_in(tmp_path, "NORMAL/n.png")
    (folder / "PNEUMONIA").mkdir()
    (folder / "PNEUMONIA" / "p.png").symlink_to("/proc/self/mem")
    with pytest.raises(EmptyDatasetError, match="no files in PNEUMONIA/"):
        read_dataset(folder, LABELS)


def test_files_equal_to_the_byte_under_both_labels_are_told(tmp_path):
    told: list[str] = []
    same = {"NORMAL/IM-0001-0001.png": b"same", "PNEUMONIA/person2_virus_2.png": b"same"}
    read_dataset(write_files(tmp_path, same), LABELS, say=told.append)
    named = "2 (NORMAL/IM-0001-0001.png, PNEUMONIA/person2_virus_2.png)"
    assert told == [f"{tmp_path}: files equal to the byte under both labels: {named}"]


def test_samples_below_a_hidden_folder_are_found(tmp_path):
    assert len(read_dataset(folder_of(tmp_path / ".data"), LABELS)) == 2


def test_a_sample_knows_its_truth_its_file_its_content_and_its_source(tmp_path):
    folder = write_files(tmp_path / "here", {"NORMAL/n.png": b"", "PNEUMONIA/p.png": b"abc"})
    normal, pneumonia = read_dataset(folder, LABELS)
    assert (normal.truth, pneumonia.truth) == ("NORMAL", "PNEUMONIA")
    assert pneumonia.file.read_bytes() == b"abc"
    assert pneumonia.sha256.startswith("ba7816bf8f01cfea")  # FIPS 180-2's example
    assert pneumonia.source == "here"
    assert pneumonia.groups == {"source": "here"}


@pytest.mark.parametrize("missing", ["NORMAL", "PNEUMONIA"])
def test_a_truth_without_files_is_an_error(tmp_path, missing):
    folder = folder_of(tmp_path)
    next((folder / missing).iterdir()).unlink()
    with pytest.raises(EmptyDatasetError, match=missing):
        read_dataset(folder, LABELS)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(EmptyDatasetError):
        read_dataset(tmp_path / "nowhere", LABELS)


# What labels.csv says.


def test_the_patient_of_labels_csv_is_the_subject(tmp_path):
    folder = folder_of(tmp_path, "NORMAL/a.png")
    patients = {"NORMAL/a.png": "7", "PNEUMONIA/p.png": "7", "NORMAL/n.png": "8.0"}
    write_labels(folder, [{"file": file, "patient": p} for file, p in patients.items()])
    found = {s.path: s.subject for s in read_dataset(folder, LABELS)}
    assert found == {
        "NORMAL/a.png": "patient 7",
        "PNEUMONIA/p.png": "patient 7",
        "NORMAL/n.png": "patient 8",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("123", "123.0"),
        ("123.0", "123,00"),
        ("0123", "123"),
        ("P 17", "p  17"),
        ("P17", "p17"),
        ("M\u00fc", "Mu\u0308"),
        ("000", "0"),
    ],
)
def test_a_patient_is_one_however_a_spreadsheet_writes_it(tmp_path, one, other):
    folder = folder_of(tmp_path, "NORMAL/a.png")
    patients = {"NORMAL/a.png": one, "PNEUMONIA/p.png": other, "NORMAL/n.png": "another"}
    write_labels(folder, [{"file": file, "patient": p} for file, p in patients.items()])
    found = {s.path: s.subject for s in read_dataset(folder, LABELS)}
    assert found["NORMAL/a.png"] == found["PNEUMONIA/p.png"] != found["NORMAL/n.png"]


@pytest.mark.parametrize(("one", "other"), [("1.2.0", "1.2"), ("A01", "A1"), ("12", "120")])
def test_patients_that_are_written_otherwise_are_others(tmp_path, one, other):
    folder = folder_of(tmp_path)
    patients = {"PNEUMONIA/p.png": one, "NORMAL/n.png": other}
    write_labels(folder, [{"file": file, "patient": p} for file, p in patients.items()])
    assert len({s.subject for s in read_dataset(folder, LABELS)}) == 2


def test_files_of_published_names_need_no_row_and_no_patient(tmp_path):
    folder = folder_of(tmp_path, "NORMAL/IM-0001-0001.png", "PNEUMONIA/person2_virus_2.png")
    rows = {"NORMAL/n.png": "7", "PNEUMONIA/p.png": "8", "PNEUMONIA/person2_virus_2.png": ""}
    write_labels(folder, [{"file": file, "patient": p} for file, p in rows.items()])
    found = by_path(read_dataset(folder, LABELS))
    assert found["NORMAL/IM-0001-0001.png"].subject == "IM 1"
    assert found["PNEUMONIA/person2_virus_2.png"].subject == "virus 2"


def test_view_age_and_sex_go_with_the_sample_where_they_are_known(tmp_path):
    folder = folder_of(tmp_path)
    write_labels(
        folder,
        [
            {"file": "NORMAL/n.png", "patient": "7", "view": "PA", "age": "41", "sex": "F"},
            {"file": "PNEUMONIA/p.png", "patient": "8", "view": "nan", "age": "", "sex": " "},
        ],
    )
    known, unknown = read_dataset(folder, LABELS)
    assert (known.view, known.age_years) == ("PA", 41)
    assert known.groups == {
        "source": folder.name,
        "view": "PA",
        "sex": "F",
        "age": "40-64",
    }
    assert (unknown.view, unknown.age_years) == (None, None)
    assert unknown.groups == {"source": folder.name}


@pytest.mark.parametrize(
    ("age", "years", "band"),
    [
        ("0", 0, "0-5"),
        ("5", 5, "0-5"),
        ("5.9", 5.9, "0-5"),
        ("17", 17, "6-17"),
        ("55.0", 55, "40-64"),
        ("055Y", 55, "40-64"),
        ("100", 100, "65+"),
        ("50+", None, None),
        ("adult?", None, None),
        ("nan", None, None),
        ("-3", None, None),
        ("411", None, None),
        ("", None, None),
    ],
)
def test_an_age_is_a_number_of_years_or_unknown(tmp_path, age, years, band):
    sample = read_dataset(labelled(tmp_path, {"a": "NORMAL", "b": "PNEUMONIA"}, age=age), LABELS)[0]
    assert sample.age_years == years
    assert sample.groups.get("age") == band


def test_a_column_of_few_values_becomes_a_group(tmp_path):
    folder = files_in(tmp_path, *(f"{i}.png" for i in range(8)))
    write_labels(
        folder,
        [
            {
                "file": f"{i}.png",
                "patient": str(i),
                "label": LABELS[i % 2],
                "Scanner": "AB"[i // 4],
                "mostly unknown": "x" if i < 2 else "",
                "accession": f"A{i}",
                "group": "own",
            }
            for i in range(8)
        ],
    )
    groups = by_path(read_dataset(folder, LABELS))["7.png"].groups
    assert groups == {"source": folder.name, "scanner": "B", "group": "own"}


def test_a_column_of_more_than_twenty_values_is_no_group(tmp_path):
    rows = {f"{i}.png": LABELS[i % 2] for i in range(42)}
    folder = labelled(tmp_path, rows)
    for n_values, grouped in ((20, True), (21, False)):
        write_labels(
            folder,
            [
                {"file": file, "label": label, "patient": str(i), "ward": f"W{i % n_values}"}
                for i, (file, label) in enumerate(rows.items())
            ],
        )
        assert all("ward" in s.groups for s in read_dataset(folder, LABELS)) == grouped


def test_the_column_label_gives_the_truth_however_the_folder_is_laid_out(tmp_path):
    rows = {"a.png": "NORMAL", "x/b.png": "pneumonia", "PNEUMONIA/c.png": "PNEUMONIA"}
    samples = read_dataset(labelled(tmp_path, rows), LABELS)
    assert {s.path: s.truth for s in samples} == {
        "a.png": "NORMAL",
        "x/b.png": "PNEUMONIA",
        "PNEUMONIA/c.png": "PNEUMONIA",
    }


def test_a_row_without_a_label_is_no_sample_and_is_told(tmp_path):
    rows = {"a.png": "NORMAL", "b.png": "PNEUMONIA", "OTHER/c.png": "", "d.png": "nan"}
    told: list[str] = []
    samples = read_dataset(labelled(tmp_path, rows), LABELS, say=told.append)
    assert [s.path for s in samples] == ["a.png", "b.png"]
    assert told == [f"{tmp_path}: rows of labels.csv without a label, left out: 2"]


def test_a_table_that_labels_each_file_may_know_one_truth_only(tmp_path):
    samples = read_dataset(labelled(tmp_path, {"a.png": "NORMAL", "b.png": "NORMAL"}), LABELS)
    assert len(samples) == 2


def test_a_folder_of_nothing_but_rows_without_a_label_is_empty(tmp_path):
    with pytest.raises(EmptyDatasetError, match="no file is labelled NORMAL or PNEUMONIA"):
        read_dataset(labelled(tmp_path, {"a.png": "", "b.png": ""}), LABELS)


def test_other_files_beside_labelled_ones_are_none_of_its_business(tmp_path):
    folder = labelled(tmp_path, {"a.png": "NORMAL", "b.png": "PNEUMONIA"})
    files_in(folder, "README.md", "boxes.csv", ".hidden.png")
    assert len(read_dataset(folder, LABELS)) == 2


@pytest.mark.parametrize(
    "written",
    [
        "NORMAL\\sub\\a.png",
        "./NORMAL/sub/a.png",
        ".\\NORMAL\\sub\\a.png",
        " NORMAL//sub/a.png ",
        "a.png",
        "sub/a.png",
        "site/NORMAL/sub/a.png",
        "C:\\data\\site\\NORMAL\\sub\\a.png",
        "/data/site/NORMAL/sub/a.png",
    ],
)
def test_a_file_is_found_however_its_name_is_written(tmp_path, written):
    folder = folder_of(tmp_path / "site", "NORMAL/sub/a.png")
    files = (written, "NORMAL/n.png", "PNEUMONIA/p.png")
    write_labels(folder, [{"file": file, "patient": f"P{i}"} for i, file in enumerate(files)])
    assert by_path(read_dataset(folder, LABELS))["NORMAL/sub/a.png"].subject == "patient P0"


def test_a_bare_name_in_both_folders_is_told_apart_by_its_label(tmp_path):
    folder = files_in(tmp_path, "NORMAL/0.png", "PNEUMONIA/0.png")
    write_labels(
        folder,
        [
            {"file": "0.png", "label": "NORMAL", "patient": "A"},
            {"file": "0.png", "label": "Pneumonia", "patient": "B"},
        ],
    )
    assert [s.subject for s in read_dataset(folder, LABELS)] == ["patient A", "patient B"]


@pytest.mark.parametrize(("page", "n_samples"), [("data.md", 3), ("tutorial.md", 2)])
def test_the_tables_of_the_documentation_are_read(tmp_path, page, n_samples):
    text = (Path(__file__).parents[2] / "docs" / page).read_text(encoding="utf-8")
    table = text.partition("\nfile,patient,")[2].partition("```")[0]
    files = [line.partition(",")[0] for line in table.splitlines()[1:]]
    folder = files_in(tmp_path, *files)
    (folder / "labels.csv").write_text(f"file,patient,{table}", encoding="utf-8")
    assert len(read_dataset(folder, LABELS)) == n_samples


# What is wrong with labels.csv.


def complaint(folder: Path, rows: list[dict[str, str]]) -> str:
    write_labels(folder, rows)
    with pytest.raises(DatasetError) as caught:
        read_dataset(folder, LABELS)
    message = str(caught.value)
    assert message.startswith(f"{folder / 'labels.csv'}: ")
    return message.removeprefix(f"{folder / 'labels.csv'}: ")


def test_rows_without_a_file_and_files_without_a_row_are_counted_and_named(tmp_path):
    folder = folder_of(tmp_path, "NORMAL/m.png")
    rows = [{"file": f"elsewhere/{i}.png", "patient": str(i)} for i in range(5)]
    assert complaint(folder, rows) == (
        "rows without a file: 5 (elsewhere/0.png, elsewhere/1.png, elsewhere/2.png, …); "
        "files without a row: 3 (NORMAL/m.png, NORMAL/n.png, PNEUMONIA/p.png)"
    )


def test_rows_for_half_of_the_files_are_an_error(tmp_path):
    rows = [{"file": "NORMAL/n.png", "patient": "1"}]
    assert complaint(folder_of(tmp_path), rows) == "files without a row: 1 (PNEUMONIA/p.png)"


def test_a_picture_anywhere_in_a_labelled_folder_wants_a_row(tmp_path):
    folder = files_in(tmp_path, "a.png", "b.png", "sub/c.png", "notes.txt")
    files = zip(("a.png", "b.png"), LABELS, strict=True)
    rows = [{"file": file, "label": label, "patient": file} for file, label in files]
    assert complaint(folder, rows) == "files without a row: 1 (sub/c.png)"


def test_rows_without_a_patient_are_an_error(tmp_path):
    rows = [{"file": "NORMAL/n.png", "patient": ""}, {"file": "PNEUMONIA/p.png", "patient": "nan"}]
    assert complaint(folder_of(tmp_path), rows) == (
        "rows without a patient: 2 (NORMAL/n.png, PNEUMONIA/p.png)"
    )


def test_patients_that_a_spreadsheet_has_rounded_are_an_error(tmp_path):
    rows = [
        {"file": "NORMAL/n.png", "patient": "1.23457E+11"},
        {"file": "PNEUMONIA/p.png", "patient": "1,23457E+11"},
    ]
    assert complaint(folder_of(tmp_path), rows).startswith(
        "patients that a spreadsheet has rounded: 2 (1.23457E+11 of NORMAL/n.png, "
    )


def test_a_file_of_a_kind_that_no_row_names_is_left_out_and_told(tmp_path):
    told: list[str] = []
    folder = folder_of(tmp_path, "NORMAL/readme.txt", "elsewhere.txt")
    files = ("NORMAL/n.png", "PNEUMONIA/p.png")
    write_labels(folder, [{"file": file, "patient": file} for file in files])
    assert len(read_dataset(folder, LABELS, say=told.append)) == 2
    assert told == [f"{folder}: files of a kind that no row names, left out: 1 (NORMAL/readme.txt)"]


def test_two_rows_for_a_file_are_an_error(tmp_path):
    rows = [
        {"file": "NORMAL/n.png", "patient": "1"},
        {"file": "NORMAL\\n.png", "patient": "2"},
        {"file": "PNEUMONIA/p.png", "patient": "3"},
    ]
    assert complaint(folder_of(tmp_path), rows) == (
        "rows for a file that has one already: 1 (NORMAL\\n.png)"
    )


def test_a_bare_name_that_several_files_have_is_an_error(tmp_path):
    folder = files_in(tmp_path, "NORMAL/0.png", "PNEUMONIA/0.png")
    rows = [{"file": "0.png", "patient": "A"}, {"file": "0.png", "patient": "B"}]
    assert complaint(folder, rows).startswith("rows that may mean several files: 2 (0.png, 0.png)")


def test_a_row_that_names_no_file_is_named_by_its_line(tmp_path):
    rows = [
        {"file": "NORMAL/n.png", "patient": "1"},
        {"file": "", "patient": "2"},
        {"file": "PNEUMONIA/p.png", "patient": "3"},
    ]
    assert complaint(folder_of(tmp_path), rows) == "rows without a file: 1 (line 3)"


def test_a_label_other_than_that_of_the_folder_is_an_error_that_names_the_file(tmp_path):
    rows = [
        {"file": "NORMAL/n.png", "patient": "1", "label": "PNEUMONIA"},
        {"file": "PNEUMONIA/p.png", "patient": "2", "label": "PNEUMONIA"},
    ]
    assert complaint(folder_of(tmp_path), rows) == (
        "files labelled otherwise than their folder: 1 (NORMAL/n.png: PNEUMONIA)"
    )


def test_a_label_that_is_none_of_the_two_is_an_error(tmp_path):
    rows = [
        {"file": "NORMAL/n.png", "patient": "1", "label": "NORMAL"},
        {"file": "PNEUMONIA/p.png", "patient": "2", "label": "PNEUMONI"},
    ]
    assert complaint(folder_of(tmp_path), rows) == (
        "labels that are neither NORMAL nor PNEUMONIA: 1 (PNEUMONI of PNEUMONIA/p.png)"
    )


def test_a_table_without_the_columns_is_an_error(tmp_path):
    folder = folder_of(tmp_path)
    write_labels(folder, [{"image": "NORMAL/n.png", "patient": "1"}])
    with pytest.raises(DatasetError, match=r"labels\.csv lacks the columns file; it has image"):
        read_dataset(folder, LABELS)


@pytest.mark.parametrize(
    "place", ["PNEUMONIA/labels.csv", "NORMAL/Labels.CSV", "labels.xlsx", "labels.csv.txt"]
)
def test_a_table_that_is_not_where_or_what_it_should_be_is_an_error(tmp_path, place):
    with pytest.raises(DatasetError, match=place):
        read_dataset(folder_of(tmp_path, place), LABELS)


def test_a_table_without_rows_is_an_error(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "labels.csv").write_text("file,patient,label\r\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"labels\.csv has no rows"):
        read_dataset(folder, LABELS)


def test_a_table_is_found_whatever_its_capitals(tmp_path):
    folder = labelled(tmp_path, {"a.png": "NORMAL", "b.png": "PNEUMONIA"})
    (folder / "labels.csv").rename(folder / "Labels.CSV")
    assert len(read_dataset(folder, LABELS)) == 2


def test_one_patient_for_all_is_an_error(tmp_path):
    folder = folder_of(tmp_path)
    files = ("NORMAL/n.png", "PNEUMONIA/p.png")
    write_labels(folder, [{"file": file, "patient": "ANON"} for file in files])
    with pytest.raises(DatasetError, match="all 2 radiographs are of one patient ANON"):
        read_dataset(folder, LABELS)


# Several folders.


def test_several_folders_are_one_data_set(tmp_path):
    here, there = folder_of(tmp_path / "here"), folder_of(tmp_path / "there")
    samples = read_dataset([here, there], LABELS)
    assert [s.path for s in samples] == [
        "here/NORMAL/n.png",
        "there/NORMAL/n.png",
        "here/PNEUMONIA/p.png",
        "there/PNEUMONIA/p.png",
    ]
    assert [s.source for s in samples] == ["here", "there"] * 2
    assert len({s.subject for s in samples}) == 4
    assert samples[0].file == here / "NORMAL/n.png"
    assert dataset_name([here, there]) == "here + there"


def test_a_list_of_one_folder_is_read_as_the_folder(tmp_path):
    folder = folder_of(tmp_path)
    assert read_dataset([folder], LABELS) == read_dataset(folder, LABELS)
    assert dataset_name([folder]) == dataset_name(folder) == folder.name


def test_a_patient_is_the_same_in_all_folders(tmp_path):
    here, there = folder_of(tmp_path / "here"), folder_of(tmp_path / "there")
    for folder in (here, there):
        files = ("NORMAL/n.png", "PNEUMONIA/p.png")
        write_labels(folder, [{"file": file, "patient": file[0]} for file in files])
    subjects = Counter(s.subject for s in read_dataset([here, there], LABELS))
    assert subjects == {"patient N": 2, "patient P": 2}


def test_the_column_source_goes_before_the_folder_s_name(tmp_path):
    here = labelled(tmp_path / "here", {"a.png": "NORMAL"}, source="hospital")
    there = labelled(tmp_path / "there", {"b.png": "PNEUMONIA", "c.png": "NORMAL"}, source="")
    samples = by_path(read_dataset([here, there], LABELS))
    assert samples["here/a.png"].source == "hospital"
    assert samples["here/a.png"].groups["source"] == "hospital"
    assert samples["there/b.png"].source == "there"


def test_folders_may_have_one_truth_each(tmp_path):
    normals, ill = files_in(tmp_path / "n", "NORMAL/a"), files_in(tmp_path / "p", "PNEUMONIA/b")
    assert [s.truth for s in read_dataset([normals, ill], LABELS)] == list(LABELS)


def test_folders_of_one_name_are_told_apart_by_where_they_lie(tmp_path):
    folders = [folder_of(tmp_path / site / "train") for site in ("a", "b")]
    samples = read_dataset(folders, LABELS)
    assert {s.path.split("/NORMAL")[0] for s in samples if not s.positive} == {"a/train", "b/train"}
    assert len({s.path for s in samples}) == 4


def test_a_part_of_a_data_set_is_of_the_source_around_it(tmp_path):
    folders = [folder_of(tmp_path / "site" / part) for part in ("train", "test")]
    assert {s.source for s in read_dataset(folders, LABELS)} == {"site"}


def test_a_folder_given_twice_is_an_error(tmp_path):
    folder = folder_of(tmp_path / "here")
    with pytest.raises(DatasetError, match="given twice"):
        read_dataset([folder, tmp_path / "here" / ".." / "here"], LABELS)


def test_one_empty_folder_of_several_is_an_error(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(EmptyDatasetError, match=str(empty)):
        read_dataset([folder_of(tmp_path / "here"), empty], LABELS)


# What lies in ../shared.


def test_adults_are_kept_apart_by_patient(shared_data):
    samples = read_dataset(shared_data / "adults", LABELS)
    assert len(samples) == 101
    assert all(s.subject.startswith("patient ") for s in samples)
    assert all(s.age_years and s.view and s.groups["sex"] for s in samples)


def test_all_sources_read_together(shared_data):
    folders = [shared_data / "chest_xray" / "train", shared_data / "adults"]
    folders += [folder for folder in (shared_data / "others").iterdir() if folder.is_dir()]
    told: list[str] = []
    samples = read_dataset(folders, LABELS, say=told.append)
    counts = Counter((s.source, s.truth) for s in samples)
    assert counts == {
        ("chest_xray", "NORMAL"): 1341,
        ("chest_xray", "PNEUMONIA"): 3875,
        ("adults", "NORMAL"): 40,
        ("adults", "PNEUMONIA"): 61,
        ("nih", "NORMAL"): 136,
        ("nih", "PNEUMONIA"): 77,
        ("rsna_normal", "NORMAL"): 1722,
        ("rsna_lungs", "NORMAL"): 1341,
        ("rsna_lungs", "PNEUMONIA"): 1505,
        ("ieee8023", "NORMAL"): 14,
        ("ieee8023", "PNEUMONIA"): 438,
        ("openist", "NORMAL"): 220,
        ("pk_tb", "NORMAL"): 314,
        ("actualmed", "NORMAL"): 16,
        ("figure1", "PNEUMONIA"): 2,
    }
    assert len(told) == 9  # sources with rows that nobody read for this finding
    assert Counter(s.groups.get("publishable") for s in samples if s.source == "ieee8023") == {
        "no": 437,
        "yes": 15,
    }


@pytest.mark.parametrize("name", ["good", "windows", "utf16"])
def test_the_tables_that_windows_writes_keep_patients_together(shared_inputs, tmp_path, name):
    subjects = Counter(s.subject for s in read_dataset(case(shared_inputs, tmp_path, name), LABELS))
    assert len(subjects) == 6
    assert set(subjects.values()) == {4}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("bare_names", r"rows that may mean several files: 24 \(00\.png, "),
        ("no_patient", r"rows without a patient: 24 \(NORMAL/00\.png, "),
    ],
)
def test_the_tables_that_cannot_be_meant_are_errors(shared_inputs, tmp_path, name, wrong):
    with pytest.raises(DatasetError, match=wrong):
        read_dataset(case(shared_inputs, tmp_path, name), LABELS)


def case(shared_inputs: Path, tmp_path: Path, name: str) -> Path:
    folder = tmp_path / "data"
    shutil.copytree(shared_inputs / "11_dataset", folder, copy_function=shutil.copyfile)
    shutil.copyfile(shared_inputs / f"11_labels_{name}.csv", folder / "labels.csv")
    return folder


def test_other_labels_name_other_folders(tmp_path):
    folder = files_in(tmp_path, "clear/a", "effusion/b", "NORMAL/c")
    samples = read_dataset(folder, Labels("clear", "effusion"))
    assert [(s.truth, s.positive) for s in samples] == [("clear", False), ("effusion", True)]
