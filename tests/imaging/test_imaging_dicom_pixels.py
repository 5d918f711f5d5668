"""Every way to store a grey picture in DICOM gives the picture that PS3.3 says is to be shown.

The table crosses photometric interpretation, bits, sign, look-up and transfer syntax. The oracle is
written down per case or is pydicom's own LUT and window, which the reader does not use.
"""

import itertools
from copy import deepcopy

import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID

from chestxray.errors import DamagedFileError
from chestxray.imaging import Acquisition, read
from chestxray.imaging.dicom import greyscale
from chestxray.imaging.dicom.acquisition import FOR_PROCESSING, NO_MODALITY
from chestxray.imaging.dicom.frame import TRANSFER_SYNTAXES
from chestxray.imaging.dicom.greyscale import EMPTY_LUT, SHORT_LUT
from factories.dicom_files import (
    COMPRESSED,
    ENCODERS,
    NATIVE,
    bare,
    compressed,
    data_set,
    dicom,
    in_syntax,
    lut,
    part10,
    phantom,
)

LOSSY = {uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000}
BITS_OF = {uid.JPEGBaseline8Bit: (8,), uid.JPEGExtended12Bit: (8, 12)}


def stored_values(bits: int, *, signed: bool) -> np.ndarray:
    """A phantom in ``bits``; signed, around zero."""
    values = phantom(bits, 96).astype(np.int32) - (2 ** (bits - 1) if signed else 0)
    kind = {(8, False): "u1", (8, True): "i1", (16, False): "u2", (16, True): "i2"}
    return values.astype(kind[8 if bits <= 8 else 16, signed])


def full_range(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


# What is done to the stored values, as attributes, and what is shown of them, in [0, 1].
def _window(function, center, width):
    return {"WindowCenter": str(center), "WindowWidth": str(width), "VOILUTFunction": function}


VOI = {
    "nothing": lambda *_: {},
    "LINEAR": lambda low, high: _window("LINEAR", (low + high) // 2, (high - low) // 2),
    "LINEAR by default": lambda low, high: _window(None, (low + high) // 2, (high - low) // 2),
    "LINEAR_EXACT": lambda low, high: _window("LINEAR_EXACT", (low + high) / 2, (high - low) / 2),
    "SIGMOID": lambda low, high: _window("SIGMOID", (low + high) / 2, (high - low) / 2),
    "rescale": lambda *_: {"RescaleSlope": "2", "RescaleIntercept": "-100"},
    "rescale and window": lambda low, high: {
        "RescaleSlope": "0.5",
        "RescaleIntercept": "10",
        **_window("LINEAR", 10 + (low + high) // 4, (high - low) // 3),
    },
    "VOI LUT": lambda low, high: {
        "VOILUTSequence": [lut(low, np.linspace(0, 4095, high - low + 1) ** 1.5 // 64, 12,
                               "SS" if low < 0 else "US")]
    },
    "short VOI LUT": lambda low, high: {
        "VOILUTSequence": [lut(low + (high - low) // 4, np.arange((high - low) // 2), 16,
                               "SS" if low < 0 else "US")]
    },
    "modality LUT": lambda low, high: {
        "ModalityLUTSequence": [lut(low, np.linspace(60000, 0, high - low + 1), 16,
                                    "SS" if low < 0 else "US")]
    },
}  # fmt: skip


def shown_by_pydicom(ds: Dataset) -> np.ndarray:
    """What pydicom makes of native pixel data, scaled as PS3.3 C.11.2.1 scales its output."""
    # Its own arithmetic would overflow in the stored values' type.
    values = apply_modality_lut(ds.pixel_array.astype(np.int64), ds)
    if "VOILUTSequence" in ds:
        levels = apply_voi_lut(values, ds)
        greatest = 2.0 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1
        return levels / max(greatest, _entries(ds).max())
    if "WindowCenter" in ds:
        shown = apply_voi_lut(values, ds)
        least, greatest = _output_range(ds)
        return (shown - least) / (greatest - least)
    return full_range(values.astype(np.float64))


def _entries(ds: Dataset) -> np.ndarray:
    return np.frombuffer(ds.VOILUTSequence[0].LUTData, "<u2")


def _output_range(ds: Dataset) -> tuple[float, float]:
    """pydicom maps a window to the range that the rescaled values can have."""
    low, high = (-(2 ** (ds.BitsStored - 1)), 2 ** (ds.BitsStored - 1) - 1)
    if ds.PixelRepresentation == 0:
        low, high = 0, 2**ds.BitsStored - 1
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    return low * slope + intercept, high * slope + intercept


@pytest.mark.parametrize("voi", VOI)
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_what_is_shown_is_what_pydicom_shows(photometric, bits, signed, voi):
    values = stored_values(bits, signed=signed)
    attributes = VOI[voi](int(values.min()), int(values.max()))
    ds = data_set(values, bits=bits, PhotometricInterpretation=photometric, **attributes)
    shown = shown_by_pydicom(ds_with_syntax(ds))
    expected = 1 - shown if photometric == "MONOCHROME1" else shown
    radiograph = read(part10(ds))
    assert np.abs(radiograph.pixels - expected).max() < 1e-5
    assert radiograph.warnings == ()


def ds_with_syntax(ds: Dataset) -> Dataset:
    part10(ds)  # gives it file meta information, without which pydicom decodes nothing
    return ds


@pytest.mark.parametrize(
    ("transfer_syntax", "bits", "photometric"),
    [
        pytest.param(syntax, bits, photometric, id=f"{UID(syntax).name}-{bits}-{photometric}")
        for syntax, photometric in itertools.product(COMPRESSED, ["MONOCHROME1", "MONOCHROME2"])
        for bits in BITS_OF.get(UID(syntax), (8, 10, 12, 16))
    ],
)
def test_every_compressed_transfer_syntax_gives_the_stored_picture(
    transfer_syntax, bits, photometric
):
    values = stored_values(bits, signed=False)
    data = compressed(values, transfer_syntax, bits=bits, PhotometricInterpretation=photometric)
    expected = full_range(values.astype(np.float64))
    if photometric == "MONOCHROME1":
        expected = 1 - expected
    tolerance = 0.02 if transfer_syntax in LOSSY else 1e-6
    assert np.abs(read(data).pixels - expected).max() < tolerance


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("transfer_syntax", NATIVE, ids=lambda syntax: UID(syntax).name)
def test_every_native_transfer_syntax_gives_the_stored_picture(transfer_syntax, bits, signed):
    values = stored_values(bits, signed=signed)
    low, high = int(values.min()), int(values.max())
    ds = data_set(values, bits=bits, **VOI["VOI LUT"](low, high))
    expected = shown_by_pydicom(ds_with_syntax(ds))
    assert np.abs(read(in_syntax(ds, transfer_syntax)).pixels - expected).max() < 1e-5


@pytest.mark.parametrize("transfer_syntax", [uid.RLELossless, uid.JPEGLosslessSV1,
                                             uid.JPEGLSLossless, uid.JPEG2000Lossless],
                         ids=lambda syntax: UID(syntax).name)  # fmt: skip
@pytest.mark.parametrize("bits", [12, 16])
def test_signed_values_survive_codecs_that_know_no_sign(transfer_syntax, bits):
    values = stored_values(bits, signed=True)
    coded = values.view(np.uint16) & (2**bits - 1)
    data = compressed(coded.astype(np.uint16), transfer_syntax, bits=bits, PixelRepresentation=1)
    expected = full_range(values.astype(np.float64))
    assert np.abs(read(data).pixels - expected).max() < 1e-6


@pytest.mark.parametrize("transfer_syntax", NATIVE[:3], ids=lambda syntax: UID(syntax).name)
def test_a_bare_data_set_is_read(transfer_syntax):
    ds = data_set()
    expected = read(part10(ds)).pixels
    assert np.array_equal(read(bare(ds, transfer_syntax)).pixels, expected)


def test_all_transfer_syntaxes_that_are_read_are_tested():
    tested = {*NATIVE, *COMPRESSED}
    # Two more names for high-throughput JPEG 2000, whose codestream is the same.
    assert set(TRANSFER_SYNTAXES) - tested == {uid.HTJ2KLosslessRPCL, uid.HTJ2K}
    for syntax in (uid.HTJ2KLosslessRPCL, uid.HTJ2K):
        frame = ENCODERS[uid.HTJ2KLossless](phantom(), 12)
        data = compressed(phantom(), syntax, frame=frame)
        assert np.array_equal(read(data).pixels, read(dicom(phantom())).pixels)


def test_a_frame_in_several_fragments_is_joined():
    frame = ENCODERS[uid.JPEGLSLossless](phantom(), 12)
    whole = compressed(phantom(), uid.JPEGLSLossless, frame=frame)
    parts = compressed(phantom(), uid.JPEGLSLossless, frame=frame, fragments=5)
    assert np.array_equal(read(parts).pixels, read(whole).pixels)


def test_bits_beside_the_stored_ones_are_not_part_of_the_value():
    """Old files keep an overlay in the high bits, and some store at the high end."""
    plain = phantom(12, 64)
    expected = read(dicom(plain)).pixels
    overlaid = plain | np.uint16(0x8000)
    assert np.array_equal(read(dicom(overlaid)).pixels, expected)
    shifted = np.uint16(plain << 4 | 3)
    assert np.array_equal(read(dicom(shifted, HighBit=15)).pixels, expected)


@pytest.mark.parametrize("transfer_syntax", [uid.JPEG2000Lossless, uid.JPEGLosslessSV1])
def test_a_codec_with_more_bits_than_are_said_to_be_stored_loses_nothing(transfer_syntax):
    values = phantom(16, 64)
    data = compressed(values, transfer_syntax, bits=16, BitsStored=12, HighBit=11)
    expected = full_range(values.astype(np.float64))
    assert np.abs(read(data).pixels - expected).max() < 1e-6


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("padding", "limit"), [(0, None), (0, 40), (40, 0), (4095, None)],
    ids=["a value", "a range", "a range downwards", "the brightest"],
)  # fmt: skip
def test_padding_is_dark_and_does_not_stretch_the_range(photometric, padding, limit):
    values = np.clip(phantom(12, 64), 1000, 3000)
    values[:, :8] = padding
    data = dicom(values, PhotometricInterpretation=photometric, PixelPaddingValue=padding,
                 PixelPaddingRangeLimit=limit)  # fmt: skip
    pixels = read(data).pixels
    assert (pixels[:, :8] == 0).all()
    expected = (values[:, 8:] - 1000.0) / 2000
    expected = 1 - expected if photometric == "MONOCHROME1" else expected
    assert np.abs(pixels[:, 8:] - expected).max() < 1e-6


def test_padding_of_a_signed_file_that_is_stated_unsigned_is_understood():
    values = phantom(12, 64).astype(np.int16)
    values[:, :8] = -2000
    ds = data_set(values, bits=16)
    ds.add_new("PixelPaddingValue", "US", 65536 - 2000)
    pixels = read(part10(ds)).pixels
    assert (pixels[:, :8] == 0).all()
    assert np.abs(pixels[:, 8:] - full_range(values[:, 8:].astype(float))).max() < 1e-6


@pytest.mark.parametrize(
    ("photometric", "shape", "inverse"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", False),
        ("MONOCHROME1", "LIN OD", True),
    ],
)
def test_presentation_lut_shape_has_the_last_word(photometric, shape, inverse):
    values = phantom(12, 64)
    data = dicom(values, PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    expected = full_range(values.astype(np.float64))
    expected = 1 - expected if inverse else expected
    assert np.abs(read(data).pixels - expected).max() < 1e-6


def test_the_first_of_several_views_is_shown():
    values = phantom(12, 64)
    one = read(dicom(values, WindowCenter="1500", WindowWidth="2000")).pixels
    two = read(dicom(values, WindowCenter=["1500", "3000"], WindowWidth=["2000", "100"])).pixels
    assert np.array_equal(one, two)
    first, second = (lut(0, np.arange(4096) ** power, 16) for power in (1, 1.2))
    one = read(dicom(values, VOILUTSequence=[first])).pixels
    two = read(dicom(values, VOILUTSequence=[first, second])).pixels
    assert np.array_equal(one, two)


def test_a_voi_lut_goes_before_a_window():
    values, table = phantom(12, 64), lut(0, np.arange(4096) * 16, 16)
    alone = read(dicom(values, VOILUTSequence=[table])).pixels
    both = read(dicom(values, VOILUTSequence=[table], WindowCenter="9", WindowWidth="9")).pixels
    assert np.array_equal(alone, both)


def test_entries_of_a_look_up_table_may_lie_in_bytes():
    values = phantom(8, 64).astype(np.uint8)
    entries = (np.arange(256) ** 2 // 255).astype(np.uint8)
    in_words = lut(0, entries.astype(np.uint16), 8)
    in_bytes = lut(0, entries.astype(np.uint16), 8)
    in_bytes.LUTData = entries.tobytes()
    expected = entries[values] / 255
    for table in (in_words, in_bytes):
        pixels = read(dicom(values, bits=8, VOILUTSequence=[table])).pixels
        assert np.abs(pixels - expected).max() < 1e-6


def test_a_look_up_table_without_content_leaves_the_window_beside_it():
    values, table = phantom(12, 64), lut(0, np.arange(4096) * 16, 16)
    window = {"WindowCenter": "1500", "WindowWidth": "2000"}
    headless, without_data, said = (deepcopy(table) for _ in range(3))
    del headless.LUTDescriptor
    del without_data.LUTData
    del said.LUTDescriptor, said.LUTData
    said.LUTExplanation = "normal"
    expected = read(dicom(values, **window)).pixels
    for empty in (Dataset(), said, headless, without_data):
        radiograph = read(dicom(values, VOILUTSequence=[empty], **window))
        assert np.array_equal(radiograph.pixels, expected)
        assert radiograph.warnings == (EMPTY_LUT,)
        radiograph = read(dicom(values, VOILUTSequence=[empty, table], **window))
        assert np.array_equal(radiograph.pixels, read(dicom(values, VOILUTSequence=[table])).pixels)
        radiograph = read(dicom(values, ModalityLUTSequence=[empty], **window))
        assert np.array_equal(radiograph.pixels, expected)
    alone = read(dicom(values, VOILUTSequence=[Dataset()]))
    assert np.array_equal(alone.pixels, read(dicom(values)).pixels)


@pytest.mark.parametrize("keyword", ["VOILUTSequence", "ModalityLUTSequence"])
@pytest.mark.parametrize("missing", [1, 2, 16])
def test_for_a_few_missing_entries_of_a_look_up_table_its_last_one_stands(keyword, missing):
    values, entries = phantom(12, 64), np.arange(4096) * 16
    entries[-missing:] = entries[-missing - 1]
    short = lut(0, entries, 16)
    whole = deepcopy(short)
    short.LUTData = short.LUTData[: -2 * missing]
    radiograph = read(dicom(values, **{keyword: [short]}))
    assert np.array_equal(radiograph.pixels, read(dicom(values, **{keyword: [whole]})).pixels)
    assert radiograph.warnings == (SHORT_LUT,)


def test_a_look_up_table_of_which_much_is_missing_is_damaged():
    short = lut(0, np.arange(4096) * 16, 16)
    for kept_bytes in (2, 4096, 2 * (4096 - 17)):
        short.LUTData = bytes(kept_bytes)
        with pytest.raises(DamagedFileError):
            read(dicom(phantom(12, 64), VOILUTSequence=[short]))


def test_a_look_up_table_of_65536_entries_says_that_it_has_none():
    values = phantom(16, 64)
    table = lut(0, np.arange(65536)[::-1], 16)
    assert table.LUTDescriptor[0] == 0
    pixels = read(dicom(values, bits=16, VOILUTSequence=[table])).pixels
    assert np.abs(pixels - (1 - values / 65535)).max() < 1e-6


def test_a_window_of_width_one_is_a_step():
    values = phantom(12, 64)
    pixels = read(dicom(values, WindowCenter="2000", WindowWidth="1")).pixels
    assert np.array_equal(pixels, (values >= 2000).astype(np.float32))


INVALID = {
    "width of zero": ({"WindowCenter": "9", "WindowWidth": "0"}, greyscale.INVALID_WINDOW),
    "width below zero": (
        {"WindowCenter": "9", "WindowWidth": "-5", "VOILUTFunction": "SIGMOID"},
        greyscale.INVALID_WINDOW,
    ),
    "no centre": ({"WindowWidth": "100"}, greyscale.INVALID_WINDOW),
    "slope of zero": ({"RescaleSlope": "0", "RescaleIntercept": "0"}, greyscale.INVALID_RESCALE),
    "slope beyond numbers": (
        {"RescaleSlope": "1e308", "RescaleIntercept": "0"},
        greyscale.INVALID_RESCALE,
    ),
}


@pytest.mark.parametrize("kind", INVALID)
def test_a_window_or_rescale_that_is_none_is_not_applied_and_the_answer_says_so(kind):
    attributes, warning = INVALID[kind]
    values = phantom(12, 64)
    radiograph = read(dicom(values, **attributes))
    assert np.abs(radiograph.pixels - full_range(values.astype(float))).max() < 1e-6
    assert radiograph.warnings == (warning,)


def test_an_unknown_voi_function_is_linear_and_the_answer_says_so():
    window = {"WindowCenter": "2000", "WindowWidth": "1000"}
    values = phantom(12, 64)
    radiograph = read(dicom(values, VOILUTFunction="LOGARITHMIC", **window))
    assert np.array_equal(radiograph.pixels, read(dicom(values, **window)).pixels)
    assert radiograph.warnings == (greyscale.UNKNOWN_VOI_FUNCTION,)


def test_one_grey_all_over_is_dark():
    assert not read(dicom(np.full((64, 64), 77, np.uint16))).pixels.any()


@pytest.mark.parametrize("orientation", ["L\\F", "R\\F", "L\\H", "R\\H",
                                         "F\\L", "F\\R", "H\\L", "H\\R"])  # fmt: skip
def test_the_picture_is_turned_upright(orientation):
    upright = phantom(12, 96)[:, :64]
    stored = stored_as(upright, *orientation.split("\\"))
    radiograph = read(dicom(stored, PatientOrientation=orientation.split("\\")))
    assert np.array_equal(radiograph.pixels, read(dicom(upright)).pixels)
    assert (radiograph.width_px, radiograph.height_px) == (64, 96)


def stored_as(upright: np.ndarray, rows_run_to: str, columns_run_to: str) -> np.ndarray:
    """The picture as a detector that was turned stores it: [row, column] by where they run to."""
    turned = upright
    if rows_run_to in "HF":
        turned = upright.T
        turned = turned if rows_run_to == "F" else turned[:, ::-1]
        turned = turned if columns_run_to == "L" else turned[::-1]
    else:
        turned = turned if rows_run_to == "L" else turned[:, ::-1]
        turned = turned if columns_run_to == "F" else turned[::-1]
    return np.ascontiguousarray(turned)


def test_a_dicom_file_says_what_it_is_and_no_more():
    radiograph = read(dicom(phantom(12, 64)))
    assert radiograph.format == "DICOM"
    assert radiograph.acquisition == Acquisition("CR", "CHEST", "PA", 3)
    assert radiograph.warnings == ()


@pytest.mark.parametrize(
    ("attributes", "warning"),
    [
        ({"Modality": None}, NO_MODALITY),
        ({"PresentationIntentType": "FOR PROCESSING"}, FOR_PROCESSING),
    ],
)
def test_what_a_reader_should_know_is_a_warning(attributes, warning):
    assert read(dicom(phantom(12, 64), **attributes)).warnings == (warning,)


def test_a_jpeg_of_another_kind_than_is_stated_is_read():
    frame = ENCODERS[uid.JPEGLosslessSV1](phantom(), 12)
    data = compressed(phantom(), uid.JPEGExtended12Bit, frame=frame)
    assert np.array_equal(read(data).pixels, read(dicom(phantom())).pixels)


@pytest.mark.parametrize("transfer_syntax", [uid.JPEGLosslessSV1, uid.JPEGLSLossless])
def test_bytes_after_a_frames_end_are_ignored(transfer_syntax):
    frame = ENCODERS[transfer_syntax](phantom(), 12) + b"scanner was here"
    data = compressed(phantom(), transfer_syntax, frame=frame)
    assert np.array_equal(read(data).pixels, read(dicom(phantom())).pixels)
