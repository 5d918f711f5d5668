import json
import random
from collections import Counter
from pathlib import Path

import pytest

from chestxray.dataset import (
    Sample,
    Split,
    check_disjoint,
    duplicates,
    read_dataset,
    read_split,
    split_folds,
    split_heldout,
    write_split,
)
from chestxray.errors import DatasetError, EmptyDatasetError, LeakError
from factories.datasets import LABELS, write_dataset, write_files, write_labels


def sample(path: str, subject: str, content: str | None = None, group: str | None = None) -> Sample:
    truth = path.split("/", maxsplit=1)[0]
    positive = truth == LABELS.positive
    return Sample(path, Path(path), truth, positive, subject, group, content or path)


def folder_of(tmp_path: Path, *paths: str) -> Path:
    """A data set of these files, each with its own content, and one more file of each truth."""
    files = {path: path.encode() for path in (*paths, "NORMAL/n.png", "PNEUMONIA/p.png")}
    return write_files(tmp_path, files)


def by_path(samples: list[Sample]) -> dict[str, Sample]:
    return {s.path: s for s in samples}


def many_samples() -> list[Sample]:
    """60 subjects of one to four radiographs, in the four groups."""
    return [
        sample(f"{truth}/{group}-{number}-{i}", f"{group} {number}", group=group)
        for truth, groups in (
            ("NORMAL", ("IM", "NORMAL2-IM")),
            ("PNEUMONIA", ("bacteria", "virus")),
        )
        for group in groups
        for number in range(15)
        for i in range(1 + number % 4)
    ]


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


def test_labels_csv_names_the_patient_of_the_files_that_it_lists(tmp_path):
    folder = folder_of(tmp_path, "NORMAL/a.png", "PNEUMONIA/b.png", "NORMAL/IM-0001-0001.png")
    write_labels(
        folder,
        [
            {"file": "NORMAL/a.png", "patient": "7", "view": "PA"},
            {"file": "PNEUMONIA/b.png", "patient": "7", "view": "AP"},
        ],
    )
    found = by_path(read_dataset(folder, LABELS))
    assert found["NORMAL/a.png"].subject == found["PNEUMONIA/b.png"].subject
    assert found["NORMAL/IM-0001-0001.png"].subject == "IM 1"
    assert found["NORMAL/n.png"].subject == "NORMAL/n.png"


def test_labels_csv_may_name_the_view_of_the_files_that_it_lists(tmp_path):
    folder = folder_of(tmp_path, "NORMAL/a.png", "NORMAL/b.png", "NORMAL/IM-0001-0001.png")
    write_labels(
        folder,
        [
            {"file": "NORMAL/a.png", "patient": "7", "view": "PA"},
            {"file": "NORMAL/b.png", "patient": "8", "view": ""},
        ],
    )
    found = by_path(read_dataset(folder, LABELS))
    assert [found[f"NORMAL/{name}"].view for name in ("a.png", "b.png", "IM-0001-0001.png")] == [
        "PA",
        None,
        None,
    ]


def test_labels_csv_without_a_view_names_none(tmp_path):
    folder = folder_of(tmp_path)
    write_labels(folder, [{"file": "NORMAL/n.png", "patient": "1"}])
    assert {s.view for s in read_dataset(folder, LABELS)} == {None}


def test_labels_csv_without_the_columns_is_an_error(tmp_path):
    folder = folder_of(tmp_path)
    write_labels(folder, [{"image": "NORMAL/n.png", "patient": "1"}])
    with pytest.raises(DatasetError, match=r"labels\.csv"):
        read_dataset(folder, LABELS)


def test_hidden_files_and_tables_are_not_samples(tmp_path):
    folder = folder_of(
        tmp_path, "NORMAL/.DS_Store", "NORMAL/.cache/x.png", "PNEUMONIA/labels.csv", "README.md"
    )
    assert [s.path for s in read_dataset(folder, LABELS)] == ["NORMAL/n.png", "PNEUMONIA/p.png"]


def test_samples_below_a_hidden_folder_are_found(tmp_path):
    assert len(read_dataset(folder_of(tmp_path / ".data"), LABELS)) == 2


def test_a_sample_knows_its_truth_its_file_and_its_content(tmp_path):
    folder = write_files(tmp_path, {"NORMAL/n.png": b"", "PNEUMONIA/p.png": b"abc"})
    normal, pneumonia = read_dataset(folder, LABELS)
    assert (normal.truth, pneumonia.truth) == ("NORMAL", "PNEUMONIA")
    assert pneumonia.file.read_bytes() == b"abc"
    assert pneumonia.sha256.startswith("ba7816bf8f01cfea")  # FIPS 180-2's example


@pytest.mark.parametrize("missing", ["NORMAL", "PNEUMONIA"])
def test_a_truth_without_files_is_an_error(tmp_path, missing):
    folder = folder_of(tmp_path)
    next((folder / missing).iterdir()).unlink()
    with pytest.raises(EmptyDatasetError, match=missing):
        read_dataset(folder, LABELS)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(EmptyDatasetError):
        read_dataset(tmp_path / "nowhere", LABELS)


def test_duplicates_are_found_by_content(tmp_path):
    folder = write_files(
        tmp_path,
        {"NORMAL/a.png": b"1", "NORMAL/b.png": b"1", "NORMAL/c.png": b"2", "PNEUMONIA/d": b"3"},
    )
    found = duplicates(read_dataset(folder, LABELS))
    assert [[s.path for s in copies] for copies in found] == [["NORMAL/a.png", "NORMAL/b.png"]]


def test_a_split_shares_no_subject_and_holds_every_sample_once():
    samples = many_samples()
    split = split_heldout(samples, 0.3, seed=1)
    assert not {s.subject for s in split.train} & {s.subject for s in split.heldout}
    assert sorted(s.path for s in (*split.train, *split.heldout)) == sorted(s.path for s in samples)


def test_each_truth_and_group_is_held_out_in_proportion():
    samples = many_samples()
    split = split_heldout(samples, 0.3, seed=1)
    everywhere = Counter((s.truth, s.group) for s in samples)
    held = Counter((s.truth, s.group) for s in split.heldout)
    for kind, n in everywhere.items():
        assert held[kind] == pytest.approx(0.3 * n, abs=4), kind  # 4: the biggest subject


def test_a_split_follows_from_the_seed_and_not_from_the_order_of_the_samples():
    samples = many_samples()
    shuffled = random.Random(5).sample(samples, len(samples))
    assert split_heldout(samples, 0.3, seed=1) == split_heldout(shuffled, 0.3, seed=1)
    assert split_heldout(samples, 0.3, seed=1) != split_heldout(samples, 0.3, seed=2)


def test_folds_hold_out_every_sample_once_and_share_no_subject():
    samples = many_samples()
    folds = split_folds(samples, 4, seed=0)
    held = [s.path for fold in folds for s in fold.heldout]
    assert sorted(held) == sorted(s.path for s in samples)
    for fold in folds:
        assert len(fold.train) + len(fold.heldout) == len(samples)
        assert not {s.subject for s in fold.train} & {s.subject for s in fold.heldout}
        assert len(fold.heldout) == pytest.approx(len(samples) / 4, rel=0.15)


@pytest.mark.parametrize("seed", range(10))
def test_subjects_that_share_a_duplicate_stay_together(seed):
    others = [
        sample(f"{truth}/{i}", f"{truth} {i}")
        for truth in ("NORMAL", "PNEUMONIA")
        for i in range(9)
    ]
    chain = [  # A and B share one file, B and C another, so A and C belong together
        sample("NORMAL/a1", "A"),
        sample("NORMAL/a2", "A", "one"),
        sample("NORMAL/b1", "B", "one"),
        sample("NORMAL/b2", "B", "two"),
        sample("NORMAL/c1", "C", "two"),
        sample("NORMAL/c2", "C"),
    ]
    split = split_heldout([*others, *chain], 0.5, seed)
    assert sum(s in chain for s in split.heldout) in {0, len(chain)}


def test_a_side_without_one_of_the_truths_is_an_error():
    samples = [sample("NORMAL/a", "A"), sample("PNEUMONIA/b", "B"), sample("PNEUMONIA/c", "C")]
    with pytest.raises(DatasetError, match="too few subjects"):
        split_heldout(samples, 0.5, seed=0)


def test_a_subject_on_both_sides_is_a_leak():
    with pytest.raises(LeakError, match="subject"):
        Split([sample("NORMAL/a", "A")], [sample("NORMAL/b", "A")])


def test_a_duplicate_on_both_sides_is_a_leak():
    with pytest.raises(LeakError, match="sha256"):
        check_disjoint([sample("NORMAL/a", "A", "same")], [sample("NORMAL/b", "B", "same")])


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return read_dataset(write_dataset(tmp_path / "data", 12), LABELS)


@pytest.fixture
def split_file(tmp_path: Path, samples: list[Sample]) -> Path:
    file = tmp_path / "split.json"
    write_split(split_heldout(samples, 0.3, seed=0), file)
    return file


def test_a_split_that_was_written_reads_back_equal(split_file, samples):
    assert read_split(split_file, samples) == split_heldout(samples, 0.3, seed=0)


def test_a_split_file_tampered_with_is_a_leak(split_file, samples):
    listed = json.loads(split_file.read_text(encoding="utf-8"))
    subjects = Counter(s.subject for s in samples if s.path in listed["train"])
    torn = next(s for s in samples if subjects[s.subject] > 1)
    listed["heldout"][torn.path] = listed["train"].pop(torn.path)
    split_file.write_text(json.dumps(listed), encoding="utf-8")
    with pytest.raises(LeakError):
        read_split(split_file, samples)


def test_a_file_that_changed_since_the_split_is_an_error(split_file, samples):
    changed = samples[3]
    changed.file.write_bytes(changed.file.read_bytes() + b"\0")
    again = read_dataset(changed.file.parents[1], LABELS)
    with pytest.raises(DatasetError, match=changed.path):
        read_split(split_file, again)


def test_a_split_of_files_that_are_gone_is_an_error(split_file, samples):
    with pytest.raises(DatasetError, match=samples[0].path):
        read_split(split_file, samples[1:])


@pytest.mark.parametrize("content", ["", "no JSON", "[]", '{"train": {}}', '{"train": 3}'])
def test_a_file_that_is_no_split_is_an_error(tmp_path, samples, content):
    file = tmp_path / "split.json"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DatasetError):
        read_split(file, samples)


def test_the_published_training_split_has_no_leak_in_any_split_of_it(shared_data):
    samples = read_dataset(shared_data / "chest_xray" / "train", LABELS)
    assert Counter(s.truth for s in samples) == {"NORMAL": 1341, "PNEUMONIA": 3875}
    assert {s.group for s in samples} == {"IM", "NORMAL2-IM", "bacteria", "virus"}
    assert sum(len(c) * (len(c) - 1) // 2 for c in duplicates(samples)) == 28  # pairs
    assert len([s for s in samples if s.subject == "bacteria 23"]) == 30

    split = split_heldout(samples, 0.15, seed=0)
    check_disjoint(split.train, split.heldout)
    assert len(split.heldout) == pytest.approx(0.15 * 5216, rel=0.02)
    folds = split_folds(samples, 5, seed=0)
    for fold in folds:
        check_disjoint(fold.train, fold.heldout)
    assert sum(len(fold.heldout) for fold in folds) == 5216


def test_adults_are_kept_apart_by_patient(shared_data):
    samples = read_dataset(shared_data / "adults", LABELS)
    assert len(samples) == 101
    assert all(s.subject.startswith("patient ") for s in samples)
