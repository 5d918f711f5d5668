"""What a data set says of its image is believed before a pixel is decoded; refusals have codes."""

import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom.config import disable_value_validation

from chestxray.errors import (
    ColourError,
    DamagedFileError,
    MultiFrameError,
    NoPixelDataError,
    TooSmallError,
    UnsupportedFormatError,
    UnsupportedTransferSyntaxError,
    WrongBodyPartError,
    WrongModalityError,
    WrongViewError,
)
from chestxray.imaging import Limits, read
from chestxray.imaging.dicom import read_data_set
from chestxray.imaging.dicom.acquisition import age_years
from factories.dicom_files import compressed, data_set, dicom, part10, phantom

SMALL = phantom(12, 64)


def code(value: str, meaning: str = "somewhere") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


REFUSED = {
    "fluoroscopy": (WrongModalityError, {"Modality": "RF"}),
    "angiography": (WrongModalityError, {"Modality": "XA"}),
    "mammography": (WrongModalityError, {"Modality": "MG"}),
    "CT": (WrongModalityError, {"Modality": "CT"}),
    "other": (WrongModalityError, {"Modality": "OT"}),
    "knee": (WrongBodyPartError, {"BodyPartExamined": "KNEE"}),
    "hip": (WrongBodyPartError, {"BodyPartExamined": "hip"}),
    "thoracic spine": (WrongBodyPartError, {"BodyPartExamined": "THORACIC SPINE"}),
    "T spine": (WrongBodyPartError, {"BodyPartExamined": "TSPINE"}),
    "thoracolumbar": (WrongBodyPartError, {"BodyPartExamined": "THORACOLUMBAR"}),
    "abdomen by code": (
        WrongBodyPartError,
        {"BodyPartExamined": None, "AnatomicRegionSequence": [code("818983003")]},
    ),
    "left lateral": (WrongViewError, {"ViewPosition": "LL"}),
    "right lateral": (WrongViewError, {"ViewPosition": "RL"}),
    "lateral": (WrongViewError, {"ViewPosition": "LATERAL"}),
    "lat": (WrongViewError, {"ViewPosition": "L LAT"}),
    "decubitus": (WrongViewError, {"ViewPosition": "LLD"}),
    "oblique": (WrongViewError, {"ViewPosition": "RLO"}),
    "lateral by code": (
        WrongViewError,
        {"ViewPosition": None, "ViewCodeSequence": [code("399173006", "left lateral")]},
    ),
    "seen from the left": (
        WrongViewError,
        {"ViewPosition": None, "PatientOrientation": ["A", "F"]},
    ),
    "seen from the right": (WrongViewError, {"ViewPosition": "", "PatientOrientation": ["P", "F"]}),
    "two frames": (MultiFrameError, {"NumberOfFrames": 2}),
    "palette": (ColourError, {"PhotometricInterpretation": "PALETTE COLOR"}),
    "three samples": (ColourError, {"SamplesPerPixel": 3}),
    "no pixel data": (NoPixelDataError, {"PixelData": None}),
    "empty pixel data": (NoPixelDataError, {"PixelData": b""}),
    "float pixel data": (NoPixelDataError, {"PixelData": None, "FloatPixelData": b"\0" * 16384}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_frontal_chest_radiograph_is_refused_by_its_code(kind):
    error, attributes = REFUSED[kind]
    with pytest.raises(error):
        read(dicom(SMALL, **attributes))


def test_colour_pixels_are_refused_planar_or_not():
    colour = np.dstack([phantom(8, 64).astype(np.uint8)] * 3)
    for planar in (0, 1):
        with pytest.raises(ColourError):
            read(dicom(colour, bits=8, PlanarConfiguration=planar))


def test_a_compressed_frame_in_colour_is_refused_whatever_the_elements_say():
    colour = np.dstack([phantom(8, 64).astype(np.uint8)] * 3)
    said = {"SamplesPerPixel": 1, "PhotometricInterpretation": "MONOCHROME2"}
    with pytest.raises(ColourError):
        read(compressed(colour, uid.JPEGLSLossless, bits=8, **said))


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "DX"},
        {"Modality": "cr "},
        {"BodyPartExamined": "THORAX"},
        {"BodyPartExamined": "PORT CHEST"},
        {"BodyPartExamined": "W033 Thorax p.a."},
        {"BodyPartExamined": "CHESTABDOMEN"},
        {"BodyPartExamined": None, "AnatomicRegionSequence": [code("51185008", "Chest")]},
        {"BodyPartExamined": None},
        {"BodyPartExamined": ""},
        {"ViewPosition": "AP"},
        {"ViewPosition": "PA"},
        {"ViewPosition": None},
        {"ViewPosition": None, "ViewCodeSequence": [code("272479007", "postero-anterior")]},
        {"PatientOrientation": None},
        {"PatientOrientation": ["LA", "F"]},
        {"NumberOfFrames": 1},
        {"NumberOfFrames": None},
    ],
    ids=str,
)
def test_what_may_be_a_frontal_chest_radiograph_is_read(attributes):
    assert read(dicom(SMALL, **attributes)).warnings == ()


def test_what_is_said_is_refused_before_the_pixels_are_looked_at():
    with pytest.raises(WrongModalityError):
        read(dicom(SMALL, Modality="MR", Rows=0, BitsAllocated=77))
    broken = compressed(SMALL, uid.JPEGLSLossless, frame=b"no frame", ViewPosition="LL")
    with pytest.raises(WrongViewError):
        read(broken)


@pytest.mark.parametrize("syntax", [uid.MPEG4HP41, uid.MPEG2MPML, "1.2.840.99999.1.2.1"])
def test_a_transfer_syntax_that_nothing_decodes_is_refused_by_its_code(syntax):
    data = dicom(SMALL).replace(b"1.2.840.10008.1.2.1\0", syntax.encode().ljust(20, b"\0")[:20])
    if len(syntax) > 20:
        data = compressed(SMALL, syntax, frame=b"\0" * 64)
    with pytest.raises(UnsupportedTransferSyntaxError):
        read(data)


@pytest.mark.parametrize("allocated", [1, 12, 32, 64])
def test_pixels_of_other_sizes_are_not_read(allocated):
    with pytest.raises(UnsupportedFormatError):
        read(dicom(SMALL, BitsAllocated=allocated))


@pytest.mark.parametrize(
    "attributes",
    [
        {"Rows": 0},
        {"Columns": None},
        {"BitsStored": 17},
        {"BitsStored": 12, "HighBit": 5},
        {"HighBit": 16},
    ],
    ids=str,
)
def test_elements_that_make_no_picture_are_damage(attributes):
    with pytest.raises(DamagedFileError):
        read(dicom(SMALL, **attributes))


def test_a_small_picture_is_too_small():
    with pytest.raises(TooSmallError):
        read(dicom(phantom(12, 31)))


@pytest.mark.parametrize(
    ("attributes", "years"),
    [
        ({"PatientAge": "003Y"}, 3),
        ({"PatientAge": "018M"}, 1.5),
        ({"PatientAge": "010W"}, 0.192),
        ({"PatientAge": "010D"}, 0.027),
        ({"PatientAge": "62"}, 62),
        ({"PatientAge": None, "PatientBirthDate": "20200102", "AcquisitionDate": "20260102"}, 6),
        ({"PatientAge": "", "PatientBirthDate": "20200102", "AcquisitionDate": None,
          "StudyDate": "20230102"}, 3),
        ({"PatientAge": "old", "PatientBirthDate": None}, None),
        ({"PatientAge": None, "PatientBirthDate": "20300101"}, None),
        ({"PatientAge": None, "PatientBirthDate": "d14a028c2a3a2bc9476102bb28823441"}, None),
    ],
    ids=str,
)  # fmt: skip
def test_the_age_is_what_is_stated_or_else_what_the_dates_give(attributes, years):
    ds = data_set(SMALL)
    for keyword, value in attributes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            vr = "AS" if keyword == "PatientAge" else "DA"
            with disable_value_validation():
                ds.add_new(keyword, "LO" if len(value) > 8 else vr, value)
    age = age_years(read_data_set(part10(ds), Limits()))
    assert age == (None if years is None else pytest.approx(years, abs=0.005))
