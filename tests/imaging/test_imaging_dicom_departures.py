"""Small departures from the standard, as real files have them, in how a frame is compressed.

What viewers read is read: as it is where that is legal, with a warning where it is not. What is not
all there is no picture.
"""

import re

import numpy as np
import pytest
from pydicom import uid
from pydicom.uid import UID

from chestxray.errors import DamagedFileError, TruncatedFileError, UnsupportedFormatError
from chestxray.imaging import read
from chestxray.imaging.dicom.codecs import NO_END_MARKER
from factories import images
from factories.dicom_files import ENCODERS, compressed, phantom

BITS = {syntax: 8 if syntax == uid.JPEGBaseline8Bit else 12 for syntax in ENCODERS}
JPEGS = [syntax for syntax in ENCODERS if "JPEG 2000" not in syntax.name]
HUFFMAN_CODED = [syntax for syntax in JPEGS if "JPEG-LS" not in syntax.name]
END = b"\xff\xd9"


def values(syntax: UID) -> np.ndarray:
    stored = phantom(BITS[syntax], 64)
    return stored.astype(np.uint8) if BITS[syntax] == 8 else stored


def frame_of(syntax: UID) -> bytes:
    frame = ENCODERS[syntax](values(syntax), BITS[syntax])
    assert frame.endswith(END)
    return frame


def file_of(syntax: UID, frame: bytes | None = None) -> bytes:
    return compressed(values(syntax), syntax, bits=BITS[syntax], frame=frame)


def by_name(syntax: UID) -> str:
    return syntax.keyword


@pytest.mark.parametrize("syntax", JPEGS, ids=by_name)
@pytest.mark.parametrize("fill", [b"\xff", b"\xff" * 300])
def test_fill_bytes_may_stand_before_any_marker(syntax: UID, fill: bytes) -> None:
    frame = frame_of(syntax)
    at = frame.index(b"\xff\xda") + 2
    header = re.sub(rb"(?<=.)\xff[\xc0-\xcf\xda\xdb\xdd\xe0-\xef\xf7\xf8]",
                    lambda marker: fill + marker[0], frame[:at], flags=re.DOTALL)  # fmt: skip
    radiograph = read(file_of(syntax, header + frame[at:-2] + fill + END))
    assert np.array_equal(radiograph.pixels, read(file_of(syntax)).pixels)
    assert radiograph.warnings == ()


@pytest.mark.parametrize("syntax", ENCODERS, ids=by_name)
@pytest.mark.parametrize("padding", [bytes(1), bytes(6000), b"\xff" * 6000, b"\xab\xcd" * 50_000])
def test_padding_of_any_length_may_follow_the_end_marker(syntax: UID, padding: bytes) -> None:
    radiograph = read(file_of(syntax, frame_of(syntax) + padding))
    assert np.array_equal(radiograph.pixels, read(file_of(syntax)).pixels)
    assert radiograph.warnings == ()


@pytest.mark.parametrize("syntax", ENCODERS, ids=by_name)
@pytest.mark.parametrize("left", [b"", b"\0", b"\xff"])
def test_a_frame_without_end_marker_is_read_with_a_warning_if_all_rows_are_there(
    syntax: UID, left: bytes
) -> None:
    radiograph = read(file_of(syntax, frame_of(syntax)[:-2] + left))
    assert np.array_equal(radiograph.pixels, read(file_of(syntax)).pixels)
    assert radiograph.warnings == (NO_END_MARKER,)


@pytest.mark.parametrize("syntax", ENCODERS, ids=by_name)
def test_a_frame_without_end_marker_and_rows_is_no_picture(syntax: UID) -> None:
    frame = frame_of(syntax)[:-2]
    for kept in (len(frame) - 8, len(frame) * 9 // 10, len(frame) // 2, len(frame) // 5):
        with pytest.raises((TruncatedFileError, DamagedFileError)):
            read(file_of(syntax, frame[:kept]))


def test_between_restart_markers_nothing_tells_whether_rows_are_missing() -> None:
    frame = images.jpeg(values(uid.JPEGBaseline8Bit), restart_marker_rows=1)
    whole = read(file_of(uid.JPEGBaseline8Bit, frame))
    assert whole.warnings == ()
    *_, last = re.finditer(rb"\xff[\xd0-\xd7]", frame)
    for cut in (frame[: last.start()], frame[:-2]):
        with pytest.raises(TruncatedFileError):
            read(file_of(uid.JPEGBaseline8Bit, cut))


@pytest.mark.parametrize("syntax", HUFFMAN_CODED, ids=by_name)
def test_a_progressive_frame_is_called_so(syntax: UID) -> None:
    progressive = images.jpeg(values(uid.JPEGBaseline8Bit), progressive=True)
    data = compressed(values(uid.JPEGBaseline8Bit), syntax, bits=8, frame=progressive)
    with pytest.raises(UnsupportedFormatError, match="progressive"):
        read(data)
