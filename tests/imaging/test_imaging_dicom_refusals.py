"""What a data set says of how its image was made, and what is refused as no single grey picture."""

from datetime import date, timedelta

import numpy as np
import pytest
from pydicom import Dataset, uid
from pydicom.config import disable_value_validation
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from chestxray.errors import (
    ColourError,
    DamagedFileError,
    MultiFrameError,
    NoPixelDataError,
    TooSmallError,
    UnsupportedFormatError,
    UnsupportedTransferSyntaxError,
)
from chestxray.imaging import Limits, read
from chestxray.imaging.dicom import read_data_set
from chestxray.imaging.dicom.acquisition import age_years
from factories.dicom_files import compressed, data_set, dicom, part10, phantom

SMALL = phantom(12, 64)

REFUSED = {
    "two frames": (MultiFrameError, {"NumberOfFrames": 2}),
    "palette": (ColourError, {"PhotometricInterpretation": "PALETTE COLOR"}),
    "three samples": (ColourError, {"SamplesPerPixel": 3}),
    "no pixel data": (NoPixelDataError, {"PixelData": None}),
    "empty pixel data": (NoPixelDataError, {"PixelData": b""}),
    "float pixel data": (NoPixelDataError, {"PixelData": None, "FloatPixelData": b"\0" * 16384}),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_single_grey_picture_is_refused_by_its_code(kind):
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
        ({"PatientAge": "365D"}, 1),
        ({"PatientAge": "364D"}, 0.997),
        ({"PatientAge": "052W"}, 0.997),
        ({"PatientAge": "012M"}, 1),
        ({"PatientAge": None, "PatientBirthDate": "20080229",
          "AcquisitionDate": "20260228"}, 17.997),
        ({"PatientAge": None, "PatientBirthDate": "20080229", "AcquisitionDate": "20260301"}, 18),
        ({"PatientAge": "62 YEARS"}, 62),
        ({"PatientAge": "1460D"}, 4),
        ({"PatientAge": "18 Months"}, 1.5),
        ({"PatientAge": None, "PatientBirthDate": "1960.07.15", "AcquisitionDate": "20260715"}, 66),
        ({"PatientAge": None, "PatientBirthDate": "1960W281"}, None),
        ({"PatientAge": None, "PatientBirthDate": "19601332"}, None),
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
    assert age is None or int(age) == int(years)


def test_everybody_is_a_year_older_on_the_birthday_and_not_a_day_before() -> None:
    for year in range(1930, 2020):
        for month, day in ((1, 1), (2, 28), (3, 1), (7, 4), (12, 31)):
            for years in (1, 5, 6, 18):
                birthday = date(year + years, month, day)
                for made, age in ((birthday, years), (birthday - timedelta(1), years - 1)):
                    ds = Dataset()
                    for keyword, when in (
                        ("PatientBirthDate", date(year, month, day)),
                        ("StudyDate", made),
                    ):
                        value = when.strftime("%Y%m%d").encode()
                        tag = tag_for_keyword(keyword)
                        ds._dict[BaseTag(tag)] = RawDataElement(
                            BaseTag(tag), "DA", 8, value, 0, False, True
                        )
                    assert int(age_years(ds)) == age
