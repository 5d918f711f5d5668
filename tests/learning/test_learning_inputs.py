from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from chestxray import imaging
from chestxray.dataset import Sample, Split, read_dataset
from chestxray.dataset.boxes import Box
from chestxray.errors import DatasetError
from chestxray.learning.inputs import (
    NOWHERE,
    Where,
    data_sha256,
    decode,
    inputs_of,
    read_pictures,
    readable_split,
    reasons,
    targets_of,
    unreadable,
)
from chestxray.learning.pictures import BOXES_PX, Pictures, bare_pictures, kept_px
from factories import images
from factories.datasets import LABELS, radiograph_levels, write_files
from factories.dicom_files import dicom
from factories.training_pictures import rectangle

CPU = torch.device("cpu")
NORMAL, PNEUMONIA = "NORMAL/n.png", "PNEUMONIA/p.png"


def two_samples(folder, negative: bytes, positive: bytes) -> list[Sample]:
    return read_dataset(write_files(folder, {NORMAL: negative, PNEUMONIA: positive}), LABELS)


@pytest.fixture
def pair(tmp_path) -> list[Sample]:
    """A negative of 100 × 60 px (width by height) and a positive of 200 × 100."""
    random = np.random.default_rng(0)
    shapes = ((60, 100), (100, 200))
    files = [images.png(random.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes]
    return two_samples(tmp_path / "place", *files)


# Decoding.


def train_and_serve_inputs(tmp_path, config, file_bytes: bytes):
    """The input of one file as training makes it, unaugmented, and as serving does."""
    sample = two_samples(tmp_path, file_bytes, file_bytes)[0]
    (trained,) = inputs_of(decode([sample], config), config, config.side_px)
    served = imaging.to_input(
        imaging.read_file(sample.file).pixels,
        side_px=config.side_px,
        mean=config.mean,
        std=config.std,
    )
    assert trained.dtype == np.float32
    assert trained.shape == served.shape == (1, config.side_px, config.side_px)
    return trained, served


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


def test_a_training_file_that_cannot_be_read_is_an_error_that_names_it(tmp_path, tiny_config):
    whole = images.png(radiograph_levels(0, opacity=False))
    samples = two_samples(tmp_path, whole, whole[:500])
    with pytest.raises(DatasetError, match=r"PNEUMONIA/p\.png"):
        decode(samples, tiny_config())
    with pytest.raises(DatasetError, match=r"PNEUMONIA/p\.png"):
        read_pictures(samples, tiny_config(), CPU)


def split_of(folder, broken: dict[str, bytes]) -> Split:
    """Two files of each truth on either side, less those that ``broken`` has otherwise."""
    files = {
        f"{truth}/{side}{number}.png": images.png(radiograph_levels(n, opacity=truth != "NORMAL"))
        for n, (truth, side, number) in enumerate(product(LABELS, ("train", "heldout"), (0, 1)))
    }
    samples = read_dataset(write_files(folder, files | broken), LABELS)
    sides = ([s for s in samples if side in s.path] for side in ("train", "heldout"))
    return Split(*sides)


def test_files_that_cannot_be_read_are_left_out_of_a_split_with_their_reasons(
    tmp_path, tiny_config
):
    broken = {
        "NORMAL/train0.png": b"no radiograph",
        "PNEUMONIA/heldout-lateral.dcm": dicom(ViewPosition="LL"),
        "PNEUMONIA/heldout1.png": b"",
    }
    whole, wrong = readable_split(split_of(tmp_path, broken), tiny_config())
    names = [[s.path.rpartition("/")[2] for s in side] for side in (whole.train, whole.heldout)]
    assert names == [
        ["train1.png", "train0.png", "train1.png"],
        ["heldout0.png", "heldout1.png", "heldout0.png"],
    ]
    assert wrong.keys() == broken.keys()
    assert wrong["NORMAL/train0.png"] == "the file is neither a JPEG nor a PNG nor DICOM"
    assert reasons(wrong).startswith("3 (NORMAL/train0.png: the file is neither")


def test_of_a_whole_split_nothing_is_left_out(tmp_path, tiny_config):
    split = split_of(tmp_path, {})
    assert readable_split(split, tiny_config()) == (split, {})


def test_a_truth_without_a_readable_file_on_one_side_is_an_error(tmp_path, tiny_config):
    broken = {f"PNEUMONIA/heldout{n}.png": b"no radiograph" for n in (0, 1)}
    with pytest.raises(DatasetError, match=r"no PNEUMONIA can be read .* 2 \(PNEUMONIA/heldout0"):
        readable_split(split_of(tmp_path, broken), tiny_config())


def test_a_file_that_is_gone_is_one_that_cannot_be_read(tmp_path, tiny_config):
    whole = images.png(radiograph_levels(0, opacity=False))
    samples = two_samples(tmp_path, whole, whole)
    samples[0].file.unlink()
    assert unreadable(samples, tiny_config()).keys() == {NORMAL}


def test_files_are_read_that_are_of_what_the_config_says_whatever_the_age(tmp_path, tiny_config):
    files = {"NORMAL/adult.dcm": dicom(PatientAge="045Y"), "PNEUMONIA/p.dcm": dicom(Modality="MG")}
    samples = read_dataset(write_files(tmp_path, files), LABELS)
    levels = decode(samples, tiny_config(age_years=[1, 5], modalities=["CR", "MG"]))
    assert levels.shape == (2, 64, 64)
    with pytest.raises(DatasetError, match=r"p\.dcm: the modality \(Modality\) is MG, not CR"):
        decode(samples, tiny_config())


def test_no_samples_are_no_pictures(tiny_config):
    assert decode([], tiny_config()).shape == (0, 64, 64)
    assert inputs_of(decode([], tiny_config()), tiny_config(), 32).shape == (0, 1, 32, 32)


# What a run trains on.


def test_training_pictures_are_those_of_serving_a_fifth_larger_than_the_networks_input(
    pair, tiny_config
):
    config = tiny_config(side_px=50)
    pictures = read_pictures(pair, config, CPU)
    assert kept_px(50) == 60
    served = [imaging.resize(imaging.read_file(s.file).pixels, 60) for s in pair]
    assert pictures.levels.dtype == torch.uint8
    assert np.abs(pictures.levels.numpy() / 255 - np.stack(served)).max() <= 0.5 / 255 + 1e-6
    assert len(pictures) == 2
    assert pictures.targets.tolist() == [0, 1]


def nothing_known(pictures: Pictures) -> bool:
    known = (pictures.knows_lungs, pictures.knows_boxes, pictures.lungs_only)
    return not any(flags.any() for flags in (*known, pictures.lungs, pictures.boxes))


def test_nothing_is_known_of_where_unless_it_is_told(pair, tiny_config):
    assert nothing_known(read_pictures(pair, tiny_config(), CPU))
    assert nothing_known(bare_pictures(decode(pair, tiny_config())))


def test_targets_are_one_for_those_with_the_finding(few_samples):
    assert targets_of(few_samples).tolist() == [s.truth == "PNEUMONIA" for s in few_samples]


def test_a_cell_of_a_box_is_as_bright_as_the_box_covers_it(pair, tiny_config):
    # Of 200 × 100 px, so a cell has 200/48 by 100/48: the box spans columns 12 to 24 and half of
    # the next, rows 6 and 7 and a quarter of the one before.
    across, down = 200 / BOXES_PX, 100 / BOXES_PX
    box = Box(12 * across, 5.75 * down, 12.5 * across, 2.25 * down, "opacity")
    pictures = read_pictures(pair, tiny_config(), CPU, Where(boxes={PNEUMONIA: [box]}))
    expected = np.zeros((BOXES_PX, BOXES_PX))
    expected[6:8, 12:24] = 1
    expected[5, 12:24] = 0.25
    expected[6:8, 24] = 0.5
    expected[5, 24] = 0.125
    assert pictures.knows_boxes.tolist() == [False, True]
    np.testing.assert_array_equal(pictures.boxes[1], np.rint(255 * expected))
    assert not pictures.boxes[0].any()


def test_boxes_that_overlap_count_once_and_end_with_the_picture(pair, tiny_config):
    whole = [Box(0, 0, 100, 100, ""), Box(50, 0, 500, 300, "")]
    pictures = read_pictures(pair, tiny_config(), CPU, Where(boxes={PNEUMONIA: whole}))
    assert (pictures.boxes[1] == 255).all()


def test_a_negatives_box_is_of_something_else(pair, tiny_config):
    where = Where(boxes={NORMAL: [Box(0, 0, 50, 50, "nodule")], PNEUMONIA: []})
    assert nothing_known(read_pictures(pair, tiny_config(), CPU, where))


def test_a_mask_of_lungs_is_stretched_as_the_picture_is(pair, tiny_config):
    mask = rectangle(224, slice(56, 168), slice(112))
    pictures = read_pictures(pair, tiny_config(side_px=40), CPU, Where(lungs={NORMAL: mask}))
    assert pictures.knows_lungs.tolist() == [True, False]
    lungs = pictures.lungs[0].numpy()
    assert lungs.shape == (48, 48)
    inner, outer = np.zeros((48, 48), bool), np.ones((48, 48), bool)
    inner[14:34, :22] = True  # a quarter to three quarters down, the left half, less the blend
    outer[10:38, :26] = False
    assert (lungs[inner] == 255).all()
    assert (lungs[outer] == 0).all()


def test_where_only_lungs_are_shown_the_rest_is_black(pair, tiny_config, tmp_path):
    shown = np.zeros((64, 64), np.uint8)
    shown[16:48, 8:56] = 120
    shown[0, 0] = 9  # what JPEG leaves on black
    black_but_lungs = two_samples(tmp_path / "lungs", images.png(shown), images.png(shown))
    config = tiny_config(lungs_only=["lungs"])
    where = Where(lungs={NORMAL: np.ones((224, 224), bool)})  # the picture itself knows better
    pictures = read_pictures([*black_but_lungs, *pair], config, CPU, where)
    assert pictures.lungs_only.tolist() == [True, True, False, False]
    assert pictures.knows_lungs.tolist()[:2] == [True, True]
    side_px = kept_px(64)
    lungs = pictures.lungs[0].numpy() / 255
    assert lungs.mean() == pytest.approx(0.5 * 0.75, abs=0.03)
    rows, columns = (np.flatnonzero(lungs.any(axis)) / side_px for axis in (1, 0))
    assert (rows[0], rows[-1]) == pytest.approx((0.25, 0.75), abs=0.03)
    assert (columns[0], columns[-1]) == pytest.approx((0.125, 0.875), abs=0.03)
    assert set(np.unique(lungs)) == {0, 1}


# Identities.


def test_the_identity_of_where_changes_with_every_box_and_every_mask():
    box, mask = Box(1, 2, 3, 4, "opacity"), rectangle(224, slice(10, 20), slice(30, 40))
    known = Where(boxes={"a": [box], "b": [box]}, lungs={"c": mask})
    others = [
        NOWHERE,
        Where(boxes={"a": [box._replace(w=3.5)], "b": [box]}, lungs={"c": mask}),
        Where(boxes={"a": [box, box], "b": [box]}, lungs={"c": mask}),
        Where(boxes={"a": [box], "d": [box]}, lungs={"c": mask}),
        Where(boxes={"a": [box], "b": [box]}, lungs={"c": ~mask}),
        Where(boxes={"a": [box], "b": [box]}, lungs={"d": mask}),
    ]
    assert len({where.sha256 for where in (known, *others)}) == 7
    turned = Where(boxes={"b": [box], "a": [box]}, lungs={"c": mask.copy()})
    assert turned.sha256 == known.sha256


def test_the_identity_of_data_is_that_of_paths_and_files_in_any_order(few_samples):
    identity = data_sha256(few_samples)
    assert data_sha256(few_samples[::-1]) == identity
    assert data_sha256(few_samples[1:]) != identity


def test_data_have_an_identity_whatever_their_names_are_made_of(few_samples):
    odd = replace(few_samples[0], path="NORMAL/R\udcf6ntgen.png")
    box = Box(1, 2, 3, 4, "")
    assert data_sha256([odd]) != data_sha256(few_samples[:1])
    assert Where(boxes={odd.path: [box]}).sha256 != Where(boxes={"a": [box]}).sha256
