"""Every kind of hostile file ends in one of our errors, or is read, at little cost.

What a walk can bound is bounded before a decoder sees the file: each is read in a process of its
own, and may take 2 s of CPU and 300 MB.
"""

import pytest

from chestxray.errors import TruncatedFileError
from chestxray.imaging import read
from factories.hostile import BEYOND_THE_WALKS, HOSTILE, progressive
from factories.reading_apart import read_apart

MOST_CPU_S = 2.0
MOST_MB = 300.0

ERRORS = {
    "damaged_file",
    "truncated_file",
    "unsupported_format",
    "unsupported_transfer_syntax",
    "colour",
    "too_many_bytes",
    "too_many_pixels",
}

READ = {
    "JPEG 2000: nothing coded",
    "JPEG 2000: as many tiles and layers as are accepted",
    "JPEG 2000: as many layers and precincts as are accepted",
    "JPEG 2000: as many code-blocks as are accepted",
    "elements: a modality table of 60 MB",
    "elements: a VOI table of 60 MB",
    "elements: a private element of 60 MB",
    "elements: as many elements as are walked",
    "PNG: data that inflate to much more than the rows",
    "PNG: a profile and a text that inflate",
}
"""Those that ask for much, and hold a picture all the same."""


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_takes_little_time_and_memory(kind):
    taken = read_apart(HOSTILE[kind]())
    assert taken.cpu_s < MOST_CPU_S
    assert taken.peak_mb < MOST_MB
    assert taken.outcome in ({"read"} if kind in READ else ERRORS)


@pytest.mark.parametrize("kind", BEYOND_THE_WALKS)
def test_a_frame_that_takes_more_than_its_size_needs_is_given_up(kind):
    taken = read_apart(BEYOND_THE_WALKS[kind]())
    assert taken.outcome in {"too_costly", "damaged_file"}
    assert taken.cpu_s < MOST_CPU_S
    assert taken.peak_mb < MOST_MB


def test_a_picture_of_few_bytes_is_read_if_they_may_be_all_of_it():
    assert read(progressive(64, 1, 20, whole=True)).pixels.shape == (64, 64)
    with pytest.raises(TruncatedFileError):
        read(progressive(640, 1, 20))
