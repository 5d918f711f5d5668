import subprocess
import sys

import numpy as np
import pytest

from chestxray.learning.augmentation import Augmenter
from chestxray.learning.config import Augmentation
from factories.datasets import radiograph_levels

ALWAYS = Augmentation.model_validate(
    {name: 1.0 for name in Augmentation.model_fields if name.endswith("_p")}
)
NEVER = Augmentation.model_validate(
    {name: 0.0 for name in Augmentation.model_fields if name.endswith("_p")}
)


@pytest.fixture(scope="module")
def image():
    return radiograph_levels(0, opacity=True)


def test_an_image_is_a_function_of_seed_epoch_and_index_alone(image):
    keys = [(seed, epoch, index) for seed in (0, 7) for epoch in (0, 5) for index in (0, 1, 2)]
    one, other = Augmenter(ALWAYS, 64), Augmenter(ALWAYS, 64)
    forwards = {key: one(image, *key) for key in keys}
    np.random.default_rng().random()
    backwards = {key: other(image, *key) for key in reversed(keys)}
    for key in keys:
        np.testing.assert_array_equal(forwards[key], backwards[key])


def test_another_seed_epoch_or_index_gives_another_image(image):
    augment = Augmenter(ALWAYS, 64)
    keys = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 1, 0), (0, 0, 2)]
    assert len({augment(image, *key).tobytes() for key in keys}) == len(keys)


@pytest.mark.parametrize("config", [Augmentation(), ALWAYS, NEVER])
@pytest.mark.parametrize("shape", [(64, 64), (224, 224), (50, 90)])
def test_the_image_comes_out_grey_square_and_of_8_bit(config, shape):
    levels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    augment = Augmenter(config, 96)
    for index in range(4):
        changed = augment(levels, 0, 0, index)
        assert changed.shape == (96, 96)
        assert changed.dtype == np.uint8


def test_the_image_that_goes_in_stays_as_it_is(image):
    before = image.copy()
    for index in range(8):
        Augmenter(ALWAYS, 64)(image, 0, 0, index)
    np.testing.assert_array_equal(image, before)


def test_no_change_is_made_where_none_is_asked_for(image):
    np.testing.assert_array_equal(Augmenter(NEVER, 64)(image, 0, 0, 0), image)


@pytest.mark.parametrize("name", [n for n in Augmentation.model_fields if n.endswith("_p")])
def test_every_change_can_be_asked_for_by_itself(image, name):
    augment = Augmenter(NEVER.model_copy(update={name: 1.0}), 64)
    other = radiograph_levels(5, opacity=False)
    assert any((augment(image, 0, 0, index, other) != image).any() for index in range(3))


def test_surroundings_are_swapped_only_where_there_are_others(image):
    augment = Augmenter(NEVER.model_copy(update={"swap_p": 1.0}), 64)
    np.testing.assert_array_equal(augment(image, 0, 0, 0), image)


def test_an_augmented_radiograph_still_resembles_itself(image):
    augment = Augmenter(Augmentation(), 64)
    means = [float(augment(image, 0, 0, index).mean()) for index in range(50)]
    assert np.mean(means) == pytest.approx(image.mean(), rel=0.25)
    assert min(float(augment(image, 0, 0, index).std()) for index in range(50)) > 5


def test_importing_it_asks_no_network():
    code = """
import socket, urllib.request
asked = []
def refuse(*args, **kwargs):
    asked.append(args)
    raise OSError("no network")
socket.getaddrinfo = socket.create_connection = urllib.request.urlopen = refuse
socket.socket.connect = refuse
import chestxray.learning.augmentation
assert not asked, asked
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
