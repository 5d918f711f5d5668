"""The codestream that is decoded is the one whose headers were read; real ones lose nothing."""

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from pydicom import uid

from chestxray.errors import DamagedFileError, TruncatedFileError, UnsupportedFormatError
from chestxray.imaging import read
from chestxray.imaging.dicom.jpeg_2000 import bounded, codestream_of, siz_of
from factories.dicom_files import ENCODERS, compressed, dicom, phantom
from factories.hostile import box, cod, codestream, jp2, marker, qcd, siz, tile_part

VALUES = phantom(12, 256)
SYNTAXES = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless)


def walked(frame: bytes) -> bytes:
    found = codestream_of(memoryview(frame))
    return bytes(bounded(found, siz_of(found)))


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_what_is_decoded_is_the_whole_codestream_and_nothing_around_it(syntax):
    frame = ENCODERS[syntax](VALUES, 12)
    assert walked(frame) == frame
    assert walked(frame + b"\0") == frame  # padded to an even length
    assert walked(frame[:-2]) == frame  # without end marker
    assert walked(jp2(box(b"jp2c", frame), box(b"free", frame))) == frame
    assert walked(jp2(box(b"jp2c", frame, length=0))) == frame


def test_a_picture_in_boxes_is_that_of_its_codestream():
    frame = ENCODERS[uid.JPEG2000Lossless](VALUES, 12)
    boxed = compressed(VALUES, uid.JPEG2000Lossless, frame=jp2(box(b"jp2c", frame), side_px=256))
    bare = compressed(VALUES, uid.JPEG2000Lossless, frame=frame)
    assert np.array_equal(read(boxed).pixels, read(bare).pixels)


@pytest.mark.parametrize(
    "how",
    [
        {"tile_size": (64, 48)},
        {"num_resolutions": 1},
        {"num_resolutions": 8},
        {"precinct_size": (64, 64), "codeblock_size": (32, 32)},
        {"progression": "RPCL", "precinct_size": (128, 128)},
        {"quality_layers": [40, 20, 0], "quality_mode": "rates"},
        {"plt": True},
    ],
    ids=str,
)
def test_what_real_encoders_do_is_read_as_it_was_stored(how):
    values = phantom(8).astype(np.uint8)
    stream = BytesIO()
    Image.fromarray(values).save(stream, "JPEG2000", no_jp2=True, **how)
    frame = stream.getvalue()
    assert walked(frame) == frame
    whole = read(compressed(values, uid.JPEG2000Lossless, bits=8, frame=frame)).pixels
    assert np.array_equal(whole, read(dicom(values, bits=8)).pixels)


MAIN = siz(64), cod(), qcd()

BROKEN = {
    "no tile": (TruncatedFileError, codestream(*MAIN)),
    "no coding style": (DamagedFileError, codestream(siz(64), qcd(), tile_part())),
    "a tile missing": (
        TruncatedFileError,
        codestream(siz(64, tile_px=32), cod(), qcd(), *(tile_part(tile=at) for at in range(3))),
    ),
    "cut within a tile": (TruncatedFileError, codestream(*MAIN, tile_part())[:-20]),
    "cut within the header": (TruncatedFileError, codestream(*MAIN)[:60]),
    "cut within the size": (TruncatedFileError, codestream(*MAIN)[:30]),
    "data before a tile": (DamagedFileError, codestream(*MAIN, b"\xff\x93", bytes(64))),
    "a tile within a tile's header": (
        DamagedFileError,
        codestream(*MAIN, tile_part(head=marker(0xFF90, bytes(8)))),
    ),
    "precincts of no pixels": (
        DamagedFileError,
        codestream(siz(64), cod(precincts=b"\x70" * 6), qcd(), tile_part()),
    ),
    "no box with a codestream": (DamagedFileError, jp2(box(b"free", bytes(64)))),
    "another coding style of the component": (
        UnsupportedFormatError,
        codestream(*MAIN, marker(0xFF53, bytes([0, 0, 5, 4, 4, 0, 1])), tile_part()),
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_cannot_be_walked_is_no_codestream(kind):
    error, frame = BROKEN[kind]
    with pytest.raises(error):
        walked(frame)


def test_the_walk_reads_a_coding_style_that_a_tile_has_of_its_own():
    own = cod(levels=0, precincts=b"\x66")
    assert walked(codestream(*MAIN, tile_part(head=own)))
    with pytest.raises(DamagedFileError):
        walked(codestream(siz(6320), cod(), qcd(), tile_part(head=cod(levels=0, precincts=b"\0"))))
