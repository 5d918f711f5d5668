import numpy as np
import pytest
import torch

from chestxray import imaging
from chestxray.dataset import read_dataset
from chestxray.errors import DatasetError
from chestxray.learning.augmentation import Augmenter
from chestxray.learning.inputs import (
    AugmentedInputs,
    EpochSampler,
    SharedBatches,
    decode,
    strata_of,
    targets_of,
    training_batches,
)
from chestxray.learning.processes import Processes
from factories import images
from factories.datasets import LABELS, radiograph_levels, write_files
from factories.dicom_files import dicom

NORMAL = "NORMAL/n.png"


def train_and_serve_inputs(tmp_path, config, file_bytes: bytes):
    """The input of one file as training makes it, unaugmented, and as serving does."""
    folder = write_files(tmp_path, {NORMAL: file_bytes, "PNEUMONIA/p.png": file_bytes})
    sample = read_dataset(folder, LABELS)[0]
    levels = decode([sample], config)
    trained = AugmentedInputs(levels, targets_of([sample]), config, config.side_px, None)[0, 0][0]
    served = imaging.to_input(
        imaging.read_file(sample.file).pixels,
        side_px=config.side_px,
        mean=config.mean,
        std=config.std,
    )
    assert trained.dtype == torch.float32
    assert trained.shape == served.shape == (1, config.side_px, config.side_px)
    return trained.numpy(), served


@pytest.mark.parametrize("encode", [images.png, images.jpeg])
def test_the_train_input_is_the_serve_input_for_8_bit_files_of_the_networks_size(
    tmp_path, tiny_config, encode
):
    levels = radiograph_levels(3, opacity=True, side_px=64)
    trained, served = train_and_serve_inputs(tmp_path, tiny_config(), encode(levels))
    np.testing.assert_array_equal(trained, served)


def test_every_grey_level_is_the_same_in_training_and_serving(tmp_path, tiny_config):
    levels = np.arange(64 * 64).reshape(64, 64).astype(np.uint8)
    trained, served = train_and_serve_inputs(tmp_path, tiny_config(), images.png(levels))
    np.testing.assert_array_equal(trained, served)


@pytest.mark.parametrize("kind", ["larger", "smaller", "jpeg", "16 bit", "colour"])
def test_the_train_input_is_the_serve_input_to_half_a_grey_level_for_other_files(
    tmp_path, tiny_config, kind
):
    random = np.random.default_rng(0)
    content = {
        "larger": lambda: images.png(radiograph_levels(1, opacity=True, side_px=150)),
        "smaller": lambda: images.png(radiograph_levels(1, opacity=True, side_px=40)),
        "jpeg": lambda: images.jpeg(radiograph_levels(1, opacity=True, side_px=600)),
        "16 bit": lambda: images.raw_png(
            random.integers(0, 65536, (64, 64)), colour=images.GREY, bits=16
        ),
        "colour": lambda: images.png(random.integers(0, 256, (64, 64, 3), dtype=np.uint8), "RGB"),
    }[kind]()
    config = tiny_config()
    trained, served = train_and_serve_inputs(tmp_path, config, content)
    assert np.abs(trained - served).max() <= 0.5 / 255 / config.std + 1e-5


def test_targets_are_one_for_those_with_the_finding(few_samples):
    assert targets_of(few_samples).tolist() == [s.truth == "PNEUMONIA" for s in few_samples]


def test_a_training_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, tiny_config):
    whole = images.png(radiograph_levels(0, opacity=False))
    folder = write_files(tmp_path, {NORMAL: whole, "PNEUMONIA/torn.png": whole[:500]})
    with pytest.raises(DatasetError, match=r"PNEUMONIA/torn\.png"):
        decode(read_dataset(folder, LABELS), tiny_config())


def test_files_are_read_that_are_of_what_the_config_says_whatever_the_age(tmp_path, tiny_config):
    files = {"NORMAL/adult.dcm": dicom(PatientAge="045Y"), "PNEUMONIA/p.dcm": dicom(Modality="RG")}
    samples = read_dataset(write_files(tmp_path, files), LABELS)
    levels = decode(samples, tiny_config(age_years=[1, 5], modalities=["CR", "RG"]))
    assert levels.shape == (2, 64, 64)
    with pytest.raises(DatasetError, match=r"PNEUMONIA/p\.dcm: the modality is not CR or DX"):
        decode(samples, tiny_config())


def test_an_epoch_shows_every_image_once_but_for_an_incomplete_last_batch(tiny_config):
    # Each image has a level of its own, and nothing is augmented.
    levels = np.repeat(np.arange(50, dtype=np.uint8), 64 * 64).reshape(50, 64, 64)
    none = {
        name: 0 for name in type(tiny_config().augmentation).model_fields if name.endswith("_p")
    }
    config = tiny_config(batch_size=16, augmentation=none)
    seen = []
    for epoch in range(2):
        batches = list(
            training_batches(
                levels,
                np.arange(50, dtype=np.float32),
                [""] * 50,
                config,
                range(epoch, epoch + 1),
            )
        )
        assert [len(inputs) for inputs, _ in batches] == [16, 16, 16]
        for inputs, targets in batches:
            shown = torch.round((inputs[:, 0, 0, 0] * config.std + config.mean) * 255)
            assert torch.equal(shown, targets)  # an image comes with its own target
        seen.append(torch.cat([targets for _, targets in batches]).tolist())
        assert len(set(seen[-1])) == 48
    assert seen[0] != seen[1]


def test_batches_have_the_size_of_the_stage(tiny_config):
    levels = np.zeros((16, 64, 64), np.uint8)
    config = tiny_config()
    batches = training_batches(levels, np.zeros(16, np.float32), [""] * 16, config, range(2))
    shapes = [inputs.shape for inputs, _ in batches]
    assert shapes == [(16, 1, 32, 32), (16, 1, 64, 64)]


def test_every_stratum_is_drawn_as_often_and_none_of_its_images_again_before_all_were():
    strata = ["rare"] * 5 + ["common"] * 35
    for epoch in range(3):
        order = [index for _, index in EpochSampler(strata, seed=1, epoch=epoch)]
        assert len(order) == 40
        counts = np.bincount(order, minlength=40)
        assert counts[:5].tolist() == [4] * 5  # a half of 40 draws among five
        assert counts[5:].sum() == 20
        assert counts[5:].max() == 1


def test_the_order_follows_from_seed_and_epoch():
    strata = ["a"] * 7 + ["b"] * 4

    def order(seed: int, epoch: int) -> list[tuple[int, int]]:
        return list(EpochSampler(strata, seed, epoch))

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2)
    assert order(0, 1) != order(1, 1)


def test_batches_of_several_epochs_are_those_of_each_one_after_the_other(tiny_config):
    config, strata = tiny_config(batch_size=4), ["a"] * 7 + ["b"] * 4
    together = list(SharedBatches(strata, config, range(1, 4), Processes()))
    each = [
        batch
        for epoch in (1, 2, 3)
        for batch in SharedBatches(strata, config, range(epoch, epoch + 1), Processes())
    ]
    assert together == each
    assert len(together) == len(SharedBatches(strata, config, range(1, 4), Processes())) == 6


@pytest.mark.parametrize("world", [2, 3, 5])
def test_processes_share_each_batch_without_duplicates_or_gaps(tiny_config, world):
    config, strata = tiny_config(batch_size=5), ["a"] * 17 + ["b"] * 6
    whole = list(SharedBatches(strata, config, range(2), Processes()))
    shares = [
        list(SharedBatches(strata, config, range(2), Processes(rank, world)))
        for rank in range(world)
    ]
    assert {len(batches) for batches in shares} == {len(whole)} == {8}
    for batch, *parts in zip(whole, *shares, strict=True):
        assert all(parts)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        dealt = [key for part in parts for key in part]
        assert sorted(dealt) == sorted(batch)
        assert parts[1] == batch[1::world]


def test_samples_are_drawn_by_group_and_by_truth_where_they_have_none(few_samples, tmp_path):
    assert strata_of(few_samples, "groups") == [s.group for s in few_samples]
    assert set(strata_of(few_samples, "plain")) == {""}
    picture = images.png(radiograph_levels(0, opacity=False))
    unnamed = read_dataset(
        write_files(tmp_path, {NORMAL: picture, "PNEUMONIA/p.png": picture + b" "}), LABELS
    )
    assert strata_of(unnamed, "groups") == ["NORMAL", "PNEUMONIA"]


def test_the_surroundings_come_from_another_image_and_the_truth_stays(tiny_config):
    levels = np.stack([radiograph_levels(seed, opacity=True, side_px=64) for seed in range(6)])
    none = {
        name: 0.0 for name in type(tiny_config().augmentation).model_fields if name.endswith("_p")
    }
    config = tiny_config(augmentation=none | {"swap_p": 1.0})
    targets = np.array([0, 1, 0, 1, 0, 1], np.float32)
    shown = AugmentedInputs(levels, targets, config, 64, Augmenter(config.augmentation, 64))
    plain = AugmentedInputs(levels, targets, config, 64, None)
    changed = 0
    for index in range(6):
        for epoch in range(3):
            picture, target = shown[epoch, index]
            again, _ = shown[epoch, index]
            assert torch.equal(picture, again)
            assert target == targets[index]
            middle = slice(24, 40)
            torch.testing.assert_close(
                picture[0, middle, middle], plain[0, index][0][0, middle, middle]
            )
            changed += not torch.equal(picture, plain[0, index][0])
    assert changed >= 10  # a partner may be the image itself
