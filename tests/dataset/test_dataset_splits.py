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
    inseparable,
    leave_out,
    read_dataset,
    read_split,
    split_folds,
    split_heldout,
    write_split,
)
from chestxray.errors import DatasetError, LeakError
from factories.datasets import LABELS, write_dataset, write_files
from factories.predictions import sample


def many_samples(source: str = "here") -> list[Sample]:
    """60 subjects of one to four radiographs, in the four groups."""
    return [
        sample(
            f"{truth}/{source}-{group}-{number}-{i}",
            subject=f"{source} {group} {number}",
            group=group,
            source=source,
        )
        for truth, groups in (
            ("NORMAL", ("IM", "NORMAL2-IM")),
            ("PNEUMONIA", ("bacteria", "virus")),
        )
        for group in groups
        for number in range(15)
        for i in range(1 + number % 4)
    ]


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


def test_each_truth_source_and_group_is_held_out_in_proportion():
    samples = [*many_samples("here"), *many_samples("there")]
    split = split_heldout(samples, 0.3, seed=1)
    everywhere = Counter((s.truth, s.source, s.group) for s in samples)
    held = Counter((s.truth, s.source, s.group) for s in split.heldout)
    assert len(everywhere) == 8
    for kind, n in everywhere.items():
        assert held[kind] == pytest.approx(0.3 * n, abs=4), kind  # 4: the biggest subject


def test_a_source_may_have_another_share_held_out():
    samples = [
        sample(f"{truth}/{source}-{n}", source=source)
        for source in ("here", "there", "far")
        for truth in LABELS
        for n in range(40)
    ]
    held = split_heldout(samples, 0.25, 0, {"there": 0.5, "far": 1.0}).heldout
    assert Counter(s.source for s in held) == {"here": 20, "there": 40, "far": 80}


def test_a_subject_of_several_sources_follows_the_greatest_share():
    samples = [
        sample(f"{LABELS[n % 2]}/{source}-{n}", subject=f"patient {n}", source=source)
        for source in ("here", "there")
        for n in range(20)
    ] + [sample(f"{LABELS[n % 2]}/more-{n}", source="more") for n in range(8)]
    split = split_heldout(samples, 0.25, 0, {"there": 1.0})
    assert {s.source for s in split.train}.isdisjoint({"here", "there"})


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
        sample(f"{truth}/{i}", subject=f"{truth} {i}")
        for truth in ("NORMAL", "PNEUMONIA")
        for i in range(9)
    ]
    chain = [  # A and B share one file, B and C another, so A and C belong together
        sample("NORMAL/a1", subject="A"),
        sample("NORMAL/a2", subject="A", content="one"),
        sample("NORMAL/b1", subject="B", content="one"),
        sample("NORMAL/b2", subject="B", content="two"),
        sample("NORMAL/c1", subject="C", content="two"),
        sample("NORMAL/c2", subject="C"),
    ]
    split = split_heldout([*others, *chain], 0.5, seed)
    assert sum(s in chain for s in split.heldout) in {0, len(chain)}


def test_a_side_without_one_of_the_truths_is_an_error():
    samples = [sample("NORMAL/a"), sample("PNEUMONIA/b"), sample("PNEUMONIA/c")]
    with pytest.raises(DatasetError, match="too few subjects"):
        split_heldout(samples, 0.5, seed=0)


def test_a_subject_on_both_sides_is_a_leak():
    with pytest.raises(LeakError, match="subject"):
        Split([sample("NORMAL/a", subject="A")], [sample("NORMAL/b", subject="A")])


def test_a_duplicate_on_both_sides_is_a_leak():
    with pytest.raises(LeakError, match="sha256"):
        check_disjoint([sample("NORMAL/a", content="same")], [sample("NORMAL/b", content="same")])


def test_a_source_left_out_is_held_out_whole_and_takes_its_subjects_along():
    kept = [sample("NORMAL/n", source="here"), sample("PNEUMONIA/p", source="here")]
    shared = sample("NORMAL/m", source="here", subject="M")
    copied = sample("NORMAL/c", source="here", content="same")
    left_out = [
        sample("PNEUMONIA/c", source="there", content="same"),
        sample("PNEUMONIA/m", source="there", subject="M"),
    ]
    split = leave_out([*left_out, copied, shared, *kept], "there")
    assert split == Split(kept, left_out)


def test_several_sources_are_left_out_together():
    samples = [s for name in ("here", "there", "elsewhere") for s in many_samples(name)]
    split = leave_out(samples, ["here", "there"])
    assert {s.source for s in split.train} == {"elsewhere"}
    assert {s.source for s in split.heldout} == {"here", "there"}


def test_a_source_left_out_that_there_is_not_is_an_error_that_names_those_there_are():
    with pytest.raises(DatasetError, match="nowhere; there are: here, there"):
        leave_out([*many_samples("here"), *many_samples("there")], "nowhere")


def test_a_source_whose_others_lack_a_truth_cannot_be_left_out():
    samples = [*many_samples("here"), sample("NORMAL/n", source="there")]
    with pytest.raises(DatasetError, match="without here"):
        leave_out(samples, "here")


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


def test_sources_that_share_patients_are_split_by_patient(shared_data):
    others = shared_data / "others"
    samples = read_dataset([others / "rsna_lungs", others / "rsna_normal", others / "nih"], LABELS)
    sources_of: dict[str, set[str]] = {}
    for each in samples:
        sources_of.setdefault(each.subject, set()).add(each.source)
    shared = {subject for subject, sources in sources_of.items() if len(sources) > 1}
    assert len(shared) > 500

    split = split_heldout(samples, 0.15, seed=0)
    assert shared & {s.subject for s in split.heldout}
    for truth in LABELS:
        of_all = Counter(s.source for s in samples if s.truth == truth)
        held = Counter(s.source for s in split.heldout if s.truth == truth)
        for source, n in of_all.items():
            assert held[source] == pytest.approx(0.15 * n, abs=0.02 * n), (truth, source)

    without = leave_out(samples, "rsna_lungs")
    assert not shared & {s.subject for s in without.train if "rsna_lungs" in sources_of[s.subject]}
    assert len(without.heldout) == 2846


def test_inseparable_samples_are_those_of_one_subject():
    samples = [
        sample("NORMAL/a", subject="A"),
        sample("PNEUMONIA/b"),
        sample("NORMAL/c", subject="A"),
    ]
    assert inseparable(samples) == [[samples[0], samples[2]], [samples[1]]]
