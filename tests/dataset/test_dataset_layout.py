from pathlib import Path

import pytest

from chestxray.dataset import Labels, read_dataset
from chestxray.dataset.layout import locate
from chestxray.errors import DatasetError, EmptyDatasetError
from factories.datasets import LABELS, write_files, write_kaggle_download, write_labels


def pair_in(folder: Path, negative: str = "NORMAL", positive: str = "PNEUMONIA") -> Path:
    """A folder with a file of each label."""
    files = (f"{negative}/IM-0001-0001.png", f"{positive}/person2_virus_2.png")
    return write_files(folder, {path: f"{folder}/{path}".encode() for path in files})


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.mark.parametrize(
    ("written", "label"),
    [("NORMAL", "NORMAL"), ("normal", "NORMAL"), ("Pneumonia", "PNEUMONIA"), ("x", ""), ("", "")],
)
def test_a_label_is_known_in_capitals_or_not(written, label):
    assert LABELS.named(written) == label


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("NORMAL/a.png", "NORMAL"),
        ("train/pneumonia/site/a.png", "PNEUMONIA"),
        ("NORMAL", ""),
        ("OTHER/NORMAL.png", ""),
    ],
)
def test_a_file_lies_in_the_folder_of_a_label_at_any_depth(path, label):
    assert LABELS.of_folder(path) == label


def test_a_folder_with_the_labels_folders_is_the_data_set(tmp_path, told):
    folder = pair_in(tmp_path / "here")
    assert locate(folder, LABELS, told.append) == folder
    assert told == []


def test_the_labels_folders_may_be_in_lower_case(tmp_path, told):
    folder = pair_in(tmp_path / "here", "normal", "Pneumonia")
    samples = read_dataset(folder, LABELS, say=told.append)
    assert [(s.path, s.truth) for s in samples] == [
        ("normal/IM-0001-0001.png", "NORMAL"),
        ("Pneumonia/person2_virus_2.png", "PNEUMONIA"),
    ]
    assert told == []


@pytest.mark.parametrize("below", ["chest_xray", "a/b/chest_xray", "train"])
def test_the_one_data_set_below_a_folder_is_taken_and_told(tmp_path, told, below):
    meant = pair_in(tmp_path / "here" / below)
    write_files(tmp_path / "here", {"__MACOSX/NORMAL/._a.png": b"", ".git/NORMAL/x": b""})
    samples = read_dataset(tmp_path / "here", LABELS, say=told.append)
    assert samples == read_dataset(meant, LABELS)
    assert told == [f"{tmp_path / 'here'} is taken to mean {meant}, the one data set below it"]


def test_a_table_makes_a_folder_a_data_set(tmp_path):
    folder = pair_in(tmp_path / "here" / "train").parent
    files = ("train/NORMAL/IM-0001-0001.png", "train/PNEUMONIA/person2_virus_2.png")
    write_labels(folder, [{"file": file, "patient": file[6]} for file in files])
    samples = read_dataset(folder, LABELS)
    assert [(s.path, s.truth) for s in samples] == [(files[0], "NORMAL"), (files[1], "PNEUMONIA")]


def test_of_the_kaggle_download_the_error_says_what_was_found_and_what_to_give(tmp_path):
    folder = write_kaggle_download(tmp_path) / "chest_xray"
    for given in (folder, tmp_path):
        with pytest.raises(DatasetError) as caught:
            read_dataset(given, LABELS)
        below = "" if given == folder else "chest_xray/"
        assert str(caught.value) == (
            f"{given} holds several data sets: 3 ({below}test: 2 NORMAL + 2 PNEUMONIA, "
            f"{below}train: 4 NORMAL + 4 PNEUMONIA, {below}val: 1 NORMAL + 1 PNEUMONIA); "
            f"say which are meant, as in --data {folder}/train"
        )


def test_a_part_of_the_kaggle_download_is_read_and_what_was_passed_over_is_told(tmp_path, told):
    part = write_kaggle_download(tmp_path) / "chest_xray" / "train"
    samples = read_dataset(part, LABELS, say=told.append)
    assert len(samples) == 8
    assert {s.source for s in samples} == {"chest_xray"}
    passed_over = "2 (NORMAL/.DS_Store, NORMAL/Thumbs.db)"
    assert told == [
        f"{part}: hidden files and those of operating systems, passed over: {passed_over}"
    ]


def test_a_folder_without_data_says_what_is_in_it(tmp_path):
    write_files(tmp_path, {"normals/a.png": b"", "ill/b.png": b"", ".hidden/NORMAL/c.png": b""})
    with pytest.raises(EmptyDatasetError) as caught:
        locate(tmp_path, LABELS)
    assert str(caught.value) == (
        f"{tmp_path} has no files in NORMAL/ or PNEUMONIA/; it has: 2 (ill, normals)"
    )


def test_a_table_beside_the_folder_is_never_ignored(tmp_path):
    folder = pair_in(tmp_path / "train")
    write_labels(tmp_path, [{"file": "train/NORMAL/IM-0001-0001.png", "patient": "1"}])
    with pytest.raises(DatasetError, match=f"has no labels.csv, but {tmp_path} has labels.csv"):
        read_dataset(folder, LABELS)
    write_labels(
        folder,
        [
            {"file": "NORMAL/IM-0001-0001.png", "patient": "1"},
            {"file": "PNEUMONIA/person2_virus_2.png", "patient": "2"},
        ],
    )
    assert len(read_dataset(folder, LABELS)) == 2


def test_nor_is_one_of_another_kind_where_the_data_lie_deeper(tmp_path):
    pair_in(tmp_path / "images")
    write_files(tmp_path, {"Labels.xlsx": b"PK"})
    with pytest.raises(DatasetError, match=r"has Labels\.xlsx"):
        read_dataset(tmp_path, LABELS)


def test_a_table_that_leads_nowhere_is_never_ignored(tmp_path):
    folder = pair_in(tmp_path / "here")
    (folder / "labels.csv").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError):
        read_dataset(folder, LABELS)


def test_links_that_lead_nowhere_are_left_out_and_told(tmp_path, told):
    folder = pair_in(tmp_path / "here")
    (folder / "NORMAL" / "dead.png").symlink_to("nowhere")
    assert len(read_dataset(folder, LABELS, say=told.append)) == 2
    assert told == [
        f"{folder}: links that lead nowhere, and what else is no file: 1 (NORMAL/dead.png)"
    ]


def test_other_labels_are_found_as_these_are(tmp_path):
    folder = pair_in(tmp_path / "here" / "set", "clear", "EFFUSION")
    assert locate(tmp_path / "here", Labels("CLEAR", "effusion")) == folder
