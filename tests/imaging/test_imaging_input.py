"""From pixels to the input, and that neither shrinking nor the file's size changes it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from chestxray.imaging import normalise, read, read_file, resize, to_input
from chestxray.imaging.network_input import shrink, stretch
from chestxray.imaging.synthetic import synthetic_radiograph
from factories import images
from factories.images import smooth


def test_resize_is_pillows_antialiased_bicubic():
    pixels = smooth(300, 500) / np.float32(255)
    by_pillow = Image.fromarray(pixels).resize((224, 224), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize(pixels, 224), np.asarray(by_pillow))


@pytest.mark.parametrize(
    ("shape", "most"), [((700, 900), 0), ((2000, 2200), 0), ((80, 60_000), 0), ((60_000, 80), 1e-6)]
)
@pytest.mark.parametrize("sides", [(224, 224), (10, 50), (512, 3)])
def test_a_large_picture_is_resized_as_by_pillow(shape, most, sides):
    """Of a very high one Pillow changes the height first, which rounds otherwise."""
    pixels = np.random.default_rng(0).random(shape, np.float32)
    by_pillow = Image.fromarray(pixels).resize(sides[::-1], Image.Resampling.BICUBIC)
    found = stretch(pixels, *sides)
    np.testing.assert_allclose(found, np.asarray(by_pillow).clip(0, 1), rtol=0, atol=most)


@pytest.mark.parametrize("shape", [(2000, 3001), (1999, 1003), (70_000, 9), (10, 11)])
def test_a_picture_that_is_shrunk_some_rows_at_a_time_is_the_same_to_the_bit(shape):
    pixels = np.random.default_rng(0).random(shape, np.float32)
    for factor in (2, 3):
        by_pillow = Image.fromarray(pixels).reduce(factor)
        np.testing.assert_array_equal(shrink(pixels, min(shape) // factor), np.asarray(by_pillow))


def test_resize_stays_within_zero_and_one():
    checkers = np.kron(np.indices((9, 7)).sum(axis=0) % 2, np.ones((40, 40))).astype(np.float32)
    small = resize(checkers, 224)
    assert small.shape == (224, 224)
    assert small.dtype == np.float32
    assert (small.min(), small.max()) == (0, 1)


def test_resize_leaves_pixels_of_the_right_size_alone():
    pixels = synthetic_radiograph(0)
    assert resize(pixels, 224) is pixels


def test_resize_keeps_the_whole_picture():
    wide = np.zeros((100, 400), np.float32)
    wide[:, :4] = wide[:, -4:] = 1  # a bar at either edge: no cropping, and nothing is padded
    small = resize(wide, 64)
    assert small[:, 0].min() > 0.5
    assert small[:, -1].min() > 0.5
    np.testing.assert_allclose(small, np.broadcast_to(small[:1], (64, 64)), atol=1e-6)


def test_the_input_is_the_resized_picture_normalised():
    pixels = smooth(300, 500) / np.float32(255)
    made = to_input(pixels, side_px=224, mean=0.5, std=0.25)
    assert made.shape == (1, 224, 224)
    assert made.dtype == np.float32
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(made, normalise(resize(pixels, 224), mean=0.5, std=0.25))
    np.testing.assert_allclose(made[0] * 0.25 + 0.5, resize(pixels, 224), atol=1e-6)


@pytest.mark.parametrize(
    ("height", "width", "factor"),
    [(2000, 2400, 4), (1791, 1000, 2), (895, 4000, 1), (3584, 3600, 8), (9000, 448, 1)],
)
def test_a_jpeg_is_shrunk_as_far_as_both_sides_allow(height, width, factor):
    radiograph = read(images.jpeg(smooth(height, width)), shrink_to_px=448)
    assert (radiograph.height_px, radiograph.width_px) == (height, width)
    assert radiograph.pixels.shape == (-(-height // factor), -(-width // factor))
    assert min(radiograph.pixels.shape) >= min(448, height, width)


def test_shrinking_leaves_the_input_of_a_phantom_alone():
    data = images.jpeg(np.uint8(np.round(synthetic_radiograph(3, 1000) * 255)))
    shrunk, full = (read(data, shrink_to_px=px) for px in (448, None))
    assert shrunk.pixels.shape == (500, 500)
    assert full.pixels.shape == (1000, 1000)
    assert np.abs(resize(shrunk.pixels, 224) - resize(full.pixels, 224)).mean() * 255 < 0.3


def test_a_cmyk_jpeg_is_not_shrunk():
    samples = np.repeat(smooth(1000, 1000)[..., np.newaxis], 4, axis=2)
    assert read(images.jpeg(samples, "CMYK"), shrink_to_px=448).pixels.shape == (1000, 1000)


def test_the_originals_give_the_input_of_their_small_copies(shared_data: Path):
    differences = []
    for path in sorted((shared_data / "originals").glob("*/*")):
        copy = shared_data / "chest_xray" / "train" / path.parent.name / path.name
        original = read_file(path, shrink_to_px=448)
        difference = resize(original.pixels, 224) - read_file(copy).pixels
        differences.append(np.abs(difference).mean() * 255)
    assert len(differences) == 80
    assert max(differences) < 4  # 3.2 measured, 2.5 on average: the copies' JPEG quality of 75


def test_the_phantom_is_the_same_everywhere_and_always():
    phantom = synthetic_radiograph(7)
    assert phantom.shape == (224, 224)
    assert phantom.dtype == np.float32
    np.testing.assert_array_equal(phantom, synthetic_radiograph(7))
    levels = np.round(phantom * 255).astype(np.uint8)
    drawn = "e8456e87172f884b359b8f936058da00c93bb43680195be6d7c7f2abbccc09b0"
    assert hashlib.sha256(levels.tobytes()).hexdigest() == drawn


def test_the_phantom_looks_like_a_chest_of_its_own():
    first, second = synthetic_radiograph(1), synthetic_radiograph(2)
    spine, lung, air = first[60:160, 108:116], first[60:160, 50:75], first[:20, :20]
    assert spine.mean() > lung.mean() + 0.3 > air.mean() + 0.3
    assert np.abs(first - second).mean() > 0.02
