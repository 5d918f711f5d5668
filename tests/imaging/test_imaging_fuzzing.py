"""Any bytes give a radiograph or one of our errors, in bounded time and memory.

The same mutants as in the committed long run (benchmarks/fuzzing.py), fewer and of another seed.
What a run finds is kept in test_imaging_read.py as bytes: under another Pillow a seed gives others.
"""

import time
from collections import Counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chestxray.imaging import Limits
from factories import images
from factories.images import smooth
from factories.mutations import (
    BLIND,
    DICOM,
    FRAMES,
    JPEG,
    PNG,
    corpus,
    image_mutant,
    with_true_checksums,
)
from factories.oracles import outcome_of_reading
from factories.reading_apart import read_apart

SEED = 4
N_MUTANTS = 8000

FEW_PIXELS = Limits(max_pixels=4_000_000)
"""So that no mutant takes long here; the long run has the limits of the service."""


def test_mutants_give_a_radiograph_or_one_of_our_errors_in_bounded_time():
    outcomes, operators, slowest_s = Counter(), set(), 0.0
    for index in range(N_MUTANTS):
        mutant = image_mutant(SEED, index)
        begun = time.process_time()
        try:
            outcomes[outcome_of_reading(mutant.data, FEW_PIXELS)] += 1
        except Exception as exc:
            exc.add_note(f"mutant {index} of seed {SEED}: {mutant.base}, {mutant.operators}")
            raise
        slowest_s = max(slowest_s, time.process_time() - begun)
        operators |= set(mutant.operators)
    assert slowest_s < 5
    # The mutants reach every decision of the reader, and every operator has a part in that.
    assert set(outcomes) >= {
        "read",
        "truncated_file",
        "damaged_file",
        "unsupported_format",
        "animated_file",
        "too_many_pixels",
        "too_small",
        "wrong_modality",
        "wrong_body_part",
        "wrong_view",
        "outside_population",
        "multi_frame",
        "colour",
        "no_pixel_data",
        "unsupported_transfer_syntax",
    }
    assert min(outcomes["read"], outcomes["damaged_file"]) > N_MUTANTS // 10
    assert operators >= {operator.__name__ for operator in (*BLIND, *JPEG, *PNG, *DICOM, *FRAMES)}


def test_a_mutant_is_a_function_of_seed_and_index():
    assert [image_mutant(1, index) for index in range(50)] == [
        image_mutant(1, index) for index in range(50)
    ]
    assert len({image_mutant(seed, 0).data for seed in range(50)}) > 40


def test_checksums_are_mended_where_they_can_be():
    png = corpus()["png palette, tRNS"]
    broken = bytearray(png)
    broken[60] ^= 1
    assert outcome_of_reading(bytes(broken)) == "damaged_file"
    assert outcome_of_reading(with_true_checksums(bytes(broken))) == "read"
    assert with_true_checksums(png) == png


@settings(derandomize=True, deadline=None, max_examples=500)
@given(st.sampled_from((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")), st.binary(max_size=4096))
@example(b"", b"")
@example(b"\x89PNG\r\n\x1a\n", images.header(64, 64, images.GREY, 8))
def test_any_bytes_give_one_of_our_errors(signature, data):
    assert outcome_of_reading(signature + data, FEW_PIXELS) != "read"


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    st.sampled_from((images.GREY, images.RGB, images.PALETTE, images.GREY_ALPHA, images.RGBA)),
    st.sampled_from((1, 2, 4, 8, 16)),
    st.booleans(),
    st.integers(1, 80),
    st.integers(1, 80),
    st.lists(st.binary(max_size=200), max_size=80),
    st.sampled_from((b"", b"PLTE", b"tRNS")),
)
def test_any_header_with_any_rows_gives_a_radiograph_or_one_of_our_errors(
    colour, bits, interlaced, width, height, rows, before
):
    header = images.header(width, height, colour, bits, interlaced)
    extra = images.chunk(before, bytes(range(255))) if before else b""
    outcome_of_reading(images.png_of(header, rows, extra), FEW_PIXELS)


@pytest.mark.parametrize("kind", [b"tRNS", b"PLTE"])
def test_a_chunk_that_belongs_before_the_data_and_follows_it_makes_nothing_warn(kind):
    """The run found a warning of Pillow's, which is an error here, in the service's log."""
    png = images.raw_png(
        smooth(40, 40), images.PALETTE, 8, before_data=images.chunk(b"PLTE", bytes(768))
    )
    late = png[:-12] + images.chunk(kind, bytes(255)) + png[-12:]
    assert outcome_of_reading(late) in {"read", "damaged_file"}


WIDTH_PX, HEIGHT_PX = 8000, 5000  # the 40 million that are accepted


def dear_png(colour: int, samples: int, before_data: bytes = b"") -> bytes:
    rows = [bytes(1 + WIDTH_PX * samples)] * HEIGHT_PX
    return images.png_of(images.header(WIDTH_PX, HEIGHT_PX, colour, 8), rows, before_data)


DEAR = {
    "RGBA": lambda: dear_png(images.RGBA, 4),
    "grey with a transparent grey": lambda: dear_png(
        images.GREY, 1, images.chunk(b"tRNS", b"\0\0")
    ),
    "RGB with a transparent colour": lambda: dear_png(
        images.RGB, 3, images.chunk(b"tRNS", bytes(6))
    ),
}


@pytest.mark.parametrize("kind", DEAR)
def test_the_dearest_files_that_are_accepted_cost_300_mb_and_seconds(kind):
    taken = read_apart(DEAR[kind]())
    assert taken.outcome == "read"
    assert 150 < taken.peak_mb < 300
    assert taken.cpu_s < 10
