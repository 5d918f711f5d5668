"""Files that lie, never end or nest without end cost a clear error, a moment and little memory."""

import re
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from pydicom import uid

from chestxray.errors import (
    ChestXrayError,
    DamagedFileError,
    TooManyBytesError,
    TooManyPixelsError,
    TruncatedFileError,
    UnsupportedFormatError,
)
from chestxray.imaging import Limits, read
from chestxray.imaging.dicom import read_data_set
from chestxray.imaging.dicom.data_set import MAX_DEPTH
from factories.dicom_files import (
    COMPRESSED,
    ENCODERS,
    bare,
    compressed,
    data_set,
    dicom,
    in_syntax,
    part10,
    phantom,
)
from factories.reading_apart import read_apart

SMALL = phantom(12, 64)
ITEM, ITEM_END, SEQUENCE_END = (
    struct.pack("<HHI", 0xFFFE, element, length)
    for element, length in ((0xE000, 0xFFFFFFFF), (0xE00D, 0), (0xE0DD, 0))
)
SEQUENCE = struct.pack("<HH2sHI", 0x0008, 0x1140, b"SQ", 0, 0xFFFFFFFF)


def before_the_data_set(data: bytes, elements: bytes) -> bytes:
    """A Part 10 file whose data set begins with other elements."""
    at = data.index(b"\x08\x00", 132 + 12)
    while data[at + 4 : at + 6].isupper() is False:
        at = data.index(b"\x08\x00", at + 1)
    return data[:at] + elements + data[at:]


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    return struct.pack("<HH2sH", group, number, vr, len(value)) + value


def nested(depth: int) -> bytes:
    return (SEQUENCE + ITEM) * depth + (ITEM_END + SEQUENCE_END) * depth


def many_elements(count: int) -> bytes:
    return b"".join(element(0x0029, number, b"CS", b"") for number in range(count))


def deflated_bomb() -> bytes:
    ds = data_set(SMALL)
    data = part10(ds, uid.DeflatedExplicitVRLittleEndian)
    inner = element(0x0008, 0x0060, b"CS", b"CR") + struct.pack(
        "<HH2sHI", 0x0009, 0x1000, b"OB", 0, 2**31 - 2
    )
    deflater = zlib.compressobj(9, wbits=-15)
    bomb = deflater.compress(inner)
    for _ in range(1024):
        bomb += deflater.compress(bytes(1024 * 1024))
    return data[: data.index(b"1.2.840.10008.1.2.1.99") + 22] + bomb + deflater.flush()


def lying_frame(transfer_syntax: str) -> bytes:
    """A small frame whose own header says that it is very large."""
    frame = bytearray(ENCODERS[transfer_syntax](SMALL, 12))
    if transfer_syntax in (uid.JPEG2000Lossless, uid.HTJ2KLossless):
        at = frame.index(b"\xff\x51") + 6
        frame[at : at + 8] = struct.pack(">II", 60000, 60000)
        frame[at + 16 : at + 24] = struct.pack(">II", 60000, 60000)
    else:
        marker = {uid.JPEGLSLossless: b"\xff\xf7", uid.JPEGExtended12Bit: b"\xff\xc1"}
        at = frame.index(marker.get(transfer_syntax, b"\xff\xc3")) + 5
        frame[at : at + 4] = struct.pack(">HH", 60000, 60000)
    return compressed(SMALL, transfer_syntax, frame=bytes(frame))


def rle_bomb() -> bytes:
    runs = b"\x81\0" * 2_000_000  # each two bytes say 128
    header = struct.pack("<16I", 2, 64, 64 + len(runs), *[0] * 13)
    return compressed(SMALL, uid.RLELossless, frame=header + runs)


HOSTILE = {
    "a deflated bomb": (TooManyBytesError, deflated_bomb),
    "rows and columns that lie": (
        TruncatedFileError,
        lambda: dicom(SMALL, Rows=6000, Columns=6000),
    ),
    "rows and columns beyond the limit": (
        TooManyPixelsError,
        lambda: dicom(SMALL, Rows=65535, Columns=65535),
    ),
    "sequences nested by thousands": (
        DamagedFileError,
        lambda: before_the_data_set(dicom(SMALL), nested(20_000)),
    ),
    "sequences nested by thousands that never end": (
        DamagedFileError,
        lambda: before_the_data_set(dicom(SMALL), (SEQUENCE + ITEM) * 100_000),
    ),
    "a sequence without end": (
        DamagedFileError,
        lambda: before_the_data_set(dicom(SMALL), SEQUENCE + (ITEM + ITEM_END) * 2_000_000),
    ),
    "elements without end": (
        DamagedFileError,
        lambda: before_the_data_set(dicom(SMALL), element(8, 0x60, b"CS", b"") * 4_000_000),
    ),
    "fragments without end": (
        DamagedFileError,
        lambda: compressed(SMALL, uid.JPEGLSLossless).replace(
            SEQUENCE_END, struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 2_000_000 + SEQUENCE_END
        ),
    ),
    "a look-up table without end": (
        DamagedFileError,
        lambda: before_the_data_set(
            dicom(SMALL),
            struct.pack("<HH2sHI", 0x0028, 0x3010, b"SQ", 0, 16_000_000)
            + struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 2_000_000,
        ),
    ),
    "look-up tables of very many elements": (
        DamagedFileError,
        lambda: before_the_data_set(
            dicom(SMALL),
            struct.pack("<HH2sHI", 0x0028, 0x3010, b"SQ", 0, 100 * (8 + 8 * 50_000))
            + 100 * (struct.pack("<HHI", 0xFFFE, 0xE000, 8 * 50_000) + many_elements(50_000)),
        ),
    ),
    "an element longer than the file": (
        TruncatedFileError,
        lambda: before_the_data_set(
            dicom(SMALL), struct.pack("<HH2sHI", 8, 0x60, b"OB", 0, 0xFFFFFFF0)
        ),
    ),
    "an RLE bomb": (DamagedFileError, rle_bomb),
    "a JPEG that lies": (DamagedFileError, lambda: lying_frame(uid.JPEGExtended12Bit)),
    "a lossless JPEG that lies": (DamagedFileError, lambda: lying_frame(uid.JPEGLosslessSV1)),
    "a JPEG-LS that lies": (DamagedFileError, lambda: lying_frame(uid.JPEGLSLossless)),
    "a JPEG 2000 that lies": (DamagedFileError, lambda: lying_frame(uid.JPEG2000Lossless)),
    "a high-throughput JPEG 2000 that lies": (
        DamagedFileError,
        lambda: lying_frame(uid.HTJ2KLossless),
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_costs_a_clear_error_a_moment_and_little_memory(kind):
    error, make = HOSTILE[kind]
    data = make()
    with pytest.raises(error):
        read(data)
    taken = read_apart(data)
    assert taken.cpu_s < 2
    assert taken.peak_mb < 250


def test_a_file_of_40_megapixels_costs_300_mb_and_seconds():
    values = np.zeros((5000, 8000), np.uint16)  # the 40 million that are accepted
    values[::7] = 4095
    taken = read_apart(compressed(values, uid.JPEGLSLossless))
    assert taken.outcome == "read"
    assert taken.peak_mb < 300
    assert taken.cpu_s < 10


def test_sequences_may_be_nested_as_deep_as_reports_are():
    for depth in (10, MAX_DEPTH):
        read(before_the_data_set(dicom(SMALL), nested(depth)))
    with pytest.raises(DamagedFileError):
        read(before_the_data_set(dicom(SMALL), nested(MAX_DEPTH + 1)))


@pytest.mark.parametrize("kind", ["explicit", "implicit", "deflated", "JPEG-LS", "bare"])
def test_a_file_cut_anywhere_is_told_so(kind):
    ds = data_set(SMALL)
    data = {
        "explicit": lambda: part10(ds),
        "implicit": lambda: in_syntax(ds, uid.ImplicitVRLittleEndian),
        "deflated": lambda: in_syntax(ds, uid.DeflatedExplicitVRLittleEndian),
        "JPEG-LS": lambda: compressed(SMALL, uid.JPEGLSLossless),
        "bare": lambda: bare(ds, uid.ExplicitVRLittleEndian),
    }[kind]()
    codes = {code_of(data[:length]) for length in range(140, len(data) - 8, 37)}
    # Cut between two elements, it is a data set that lacks something.
    assert codes <= {"truncated_file", "no_pixel_data", "damaged_file", "unsupported_format"}
    assert "truncated_file" in codes


def code_of(data: bytes) -> str:
    try:
        read(data)
    except ChestXrayError as exc:
        return exc.code
    return "read"


@pytest.mark.parametrize("transfer_syntax", COMPRESSED, ids=lambda syntax: syntax.name)
def test_a_broken_frame_is_damage_and_no_picture_or_a_picture_of_the_right_size(transfer_syntax):
    values = phantom(8, 64).astype(np.uint8)
    whole = compressed(values, transfer_syntax, bits=8)
    start = whole.index(b"\xe0\x7f\x10\x00") + 20
    rng = np.random.default_rng(7)
    for _ in range(60):
        broken = bytearray(whole)
        for at in rng.integers(start, len(whole) - 8, 4):
            broken[at] = rng.integers(256)
        try:
            assert read(bytes(broken)).pixels.shape == (64, 64)
        except ChestXrayError as exc:
            assert exc.code in {"damaged_file", "truncated_file", "colour"}  # noqa: PT017


def test_what_is_no_data_set_is_not_taken_for_one():
    for data in (b"\x08\x00" + bytes(200), b"\x08\x00\x05\x00QQ\x02\x00" + bytes(100), bytes(300)):
        with pytest.raises((UnsupportedFormatError, ChestXrayError)):
            read(data)
    with pytest.raises(UnsupportedFormatError):
        read(b"BM" + bytes(300))


def test_a_part_10_file_may_begin_as_another_file_does():
    data = dicom(SMALL)
    for preamble in (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0"):
        disguised = preamble + data[len(preamble) :]
        assert np.array_equal(read(disguised).pixels, read(data).pixels)


def test_what_is_said_of_the_vrs_may_be_wrong():
    ds = data_set(SMALL)
    explicit = part10(ds)
    lying = explicit.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2\0\0\0")
    assert np.array_equal(read(lying).pixels, read(explicit).pixels)


def test_what_follows_the_pixel_data_is_not_looked_at():
    data = dicom(SMALL)
    for garbage in (bytes(1000), b"\xff" * 1000, b"scanner was here"):
        assert np.array_equal(read(data + garbage).pixels, read(data).pixels)


def test_no_error_tells_who_the_patient_is():
    for attributes in ({"SamplesPerPixel": 3}, {"Rows": 1}, {"PhotometricInterpretation": "PAULA"}):
        with pytest.raises(ChestXrayError) as raised:
            read(dicom(SMALL, **attributes))
        assert not re.search("(?i)paula|P-1|2023", str(raised.value))


def test_reading_takes_little_more_than_the_picture():
    data = dicom(phantom(12, 1000))
    read(data)
    tracemalloc.start()
    begun = time.process_time()
    read(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16e6  # the words and the pixels have 6 MB, the table 2 MB
    assert time.process_time() - begun < 2


def test_a_data_set_holds_its_values_as_they_are_stored():
    ds = read_data_set(dicom(SMALL), Limits())
    assert ds.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
    assert ds.PatientName == "Phantom^Paula"
    assert np.frombuffer(ds.PixelData, "<u2").reshape(64, 64).tolist() == SMALL.tolist()
