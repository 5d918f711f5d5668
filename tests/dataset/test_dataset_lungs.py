from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from chestxray.dataset import read_dataset, read_lungs
from chestxray.errors import DatasetError
from factories.datasets import LABELS
from factories.predictions import sample

SAMPLES = [sample("NORMAL/a.png"), sample("PNEUMONIA/b.jpeg")]


def mask(seed: int) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((224, 224)) < 0.3


def masks_file(file: Path, *names: str) -> Path:
    """Masks of these names, made by ``mask`` with the place of each as the seed."""
    bits = np.stack([np.packbits(mask(i)) for i in range(len(names))])
    np.savez(file, name=np.array(names), bits=bits)
    return file


def test_masks_are_found_by_the_file_s_name(tmp_path):
    files = [
        masks_file(tmp_path / "1.npz", "a", "z"),
        masks_file(tmp_path / "2.npz", "y", "b.jpeg"),
    ]
    masks = read_lungs(files, SAMPLES)
    assert masks.keys() == {"NORMAL/a.png", "PNEUMONIA/b.jpeg"}
    assert masks["NORMAL/a.png"].dtype == bool
    np.testing.assert_array_equal(masks["NORMAL/a.png"], mask(0))
    np.testing.assert_array_equal(masks["PNEUMONIA/b.jpeg"], mask(1))


def test_copies_of_a_radiograph_in_two_sources_share_a_mask(tmp_path):
    copies = [sample(f"{source}/NORMAL/a.png", subject="A") for source in ("here", "there")]
    assert len(read_lungs([masks_file(tmp_path / "1.npz", "a")], copies)) == 2


def test_a_mask_that_may_be_of_several_subjects_is_an_error(tmp_path):
    samples = [sample("NORMAL/a.png"), sample("PNEUMONIA/a.png")]
    with pytest.raises(DatasetError, match=r"several subjects: 1 \(a\)"):
        read_lungs([masks_file(tmp_path / "1.npz", "a")], samples)


def test_two_masks_of_a_name_are_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"have a mask already: 1 \(a\)"):
        read_lungs([masks_file(tmp_path / "1.npz", "a", "a")], SAMPLES)


def test_a_file_without_a_mask_for_the_data_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match="no mask for any radiograph"):
        read_lungs([masks_file(tmp_path / "1.npz", "z")], SAMPLES)


@pytest.mark.parametrize(
    "arrays",
    [
        {"name": np.array(["a"])},
        {"name": np.array(["a"]), "bits": np.zeros((1, 100), np.uint8)},
        {"name": np.array(["a"]), "bits": np.zeros((2, 6272), np.uint8)},
        {"name": np.array(["a"]), "bits": np.zeros((1, 6272), np.int64)},
        {"name": np.array("a"), "bits": np.zeros((1, 6272), np.uint8)},
        {"name": np.array(["a"], dtype=object), "bits": np.zeros((1, 6272), np.uint8)},
    ],
)
def test_arrays_that_are_no_masks_are_an_error(tmp_path, arrays):
    file = tmp_path / "1.npz"
    np.savez(file, **arrays)
    with pytest.raises(DatasetError, match=str(file)):
        read_lungs([file], SAMPLES)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken off"])
def test_a_file_that_is_no_archive_of_arrays_is_an_error(tmp_path, content):
    file = tmp_path / "1.npz"
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=str(file)):
        read_lungs([file], SAMPLES)


def test_a_single_array_is_an_error(tmp_path):
    np.save(tmp_path / "1.npy", np.zeros((1, 6272), np.uint8))
    with pytest.raises(DatasetError, match="holds no masks"):
        read_lungs([tmp_path / "1.npy"], SAMPLES)


def test_every_training_picture_of_children_has_a_mask(shared_data):
    samples = read_dataset(shared_data / "chest_xray" / "train", LABELS)
    masks = read_lungs([shared_data / "others" / "lung_masks_kaggle_train_224.npz"], samples)
    assert masks.keys() == {s.path for s in samples}
    assert 0.1 < np.mean([masks[s.path].mean() for s in samples]) < 0.4
