"""What a data set says of how its image was made, in standard terms.

Body parts and views are free text in practice ("CHEST_PA", "W034Thorax"), so they are told by what
they contain.

Sources: PS3.3 C.7.3.1 (Modality), C.8.1.1, C.8.11.3 and C.8.11.5 (DX), C.7.6.1.1.1 (Patient
Orientation), PS3.16 CID 4010 (DX View). Does not: decide what a bundle may judge (``assessment``
does), or read who the patient is, the age apart.
"""

from __future__ import annotations

import re
from datetime import date

from pydicom import Dataset

from chestxray.errors import ColourError, MultiFrameError, NoPixelDataError
from chestxray.imaging.dicom.elements import integer, items, number, stored, text, texts
from chestxray.imaging.radiograph import Acquisition, View

NO_MODALITY = "the file does not say its modality"
FOR_PROCESSING = (
    "the image is meant for processing, not for presentation: its grey levels may be the detector's"
)

CHEST = "CHEST"
_CHEST = re.compile(r"CHEST|THORA|TORAX|TORAC|LUNG")
_BESIDE_THE_CHEST = re.compile(r"SPINE|LUMB|BONE|RIB|VERTEB")
_CHEST_CODES = {"51185008", "T-D3000", "39607008", "T-28000"}  # thorax, lung; SNOMED CT and RT

_NOT_FRONTAL: tuple[tuple[re.Pattern[str], View], ...] = (
    (re.compile("DECUB"), "DECUBITUS"),
    (re.compile("OBL"), "OBLIQUE"),
    (re.compile("LORD"), "LORDOTIC"),
    (re.compile("AXIAL"), "AXIAL"),
    (re.compile("SAGITTAL"), "SAGITTAL"),
    (re.compile("TANGENTIAL"), "TANGENTIAL"),
    (re.compile("LAT"), "LATERAL"),
)
_NOT_FRONTAL_CODES: dict[View, tuple[str, ...]] = {
    "LATERAL": ("LL", "RL"),
    "DECUBITUS": ("LLD", "RLD"),
    "OBLIQUE": ("LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "LO", "RO"),
}
_FRONTAL: tuple[tuple[re.Pattern[str], View], ...] = (
    (re.compile(r"\bA\.?P\b|ANTERO-?POSTERIOR"), "AP"),
    (re.compile(r"\bP\.?A\b|POSTERO-?ANTERIOR"), "PA"),
)

_UNITS_A_YEAR = {"D": 365, "W": 365 / 7, "M": 12, "Y": 1}
# Without a unit in many a file (years), in some with more than its letter.
_AGE = re.compile(r"(\d{1,4})\s*(?:([DWMY])(?:AYS?|EEKS?|ONTHS?|EARS?|RS?)?)?")
_DATE = re.compile(r"(\d{4})\.?(\d{2})\.?(\d{2})(?:\d{2,6}(?:\.\d*)?(?:[+-]\d{4})?)?")
_WHEN_MADE = (
    *("AcquisitionDate", "AcquisitionDateTime", "ContentDate"),
    *("SeriesDate", "StudyDate"),
)


def acquisition_of(ds: Dataset) -> Acquisition:
    """What a data set says of how its image was made."""
    return Acquisition(text(ds, "Modality"), _body_part(ds), _view(ds), age_years(ds))


def check_picture(ds: Dataset) -> list[str]:
    """Refuse what is no single grey picture; what a reader should know besides as warnings.

    Raises:
        MultiFrameError, ColourError, NoPixelDataError: the first that holds, in this order.
    """
    if (number(ds, "NumberOfFrames") or 1) > 1:
        raise MultiFrameError("an image of several frames is not read")
    photometric = text(ds, "PhotometricInterpretation") or "MONOCHROME2"
    if (integer(ds, "SamplesPerPixel") or 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise ColourError("an image in colour is not read")
    if stored(ds, "PixelData") is None:
        raise NoPixelDataError("the file has no pixel data")
    warnings = []
    if text(ds, "Modality") is None:
        warnings.append(NO_MODALITY)
    if text(ds, "PresentationIntentType") == "FOR PROCESSING":
        warnings.append(FOR_PROCESSING)
    return warnings


def age_years(ds: Dataset) -> float | None:
    """The patient's age when the image was made, if the data set tells it: whole on a birthday."""
    age = _AGE.fullmatch(text(ds, "PatientAge") or "")
    if age is not None:
        return int(age[1]) / _UNITS_A_YEAR[age[2] or "Y"]
    born = _date(ds, "PatientBirthDate")
    for keyword in _WHEN_MADE:
        made = _date(ds, keyword)
        if born is not None and made is not None and made >= born:
            return _years_between(born, made)
    return None


def _years_between(born: date, made: date) -> float:
    """Completed years, and the part of the next that has passed."""
    years = made.year - born.year - ((made.month, made.day) < (born.month, born.day))
    # Who was born on 29 February has a birthday on 1 March in other years.
    ordinal = date(born.year + years, born.month, 1).toordinal() + born.day - 1
    return years + (made.toordinal() - ordinal) / 366


def _date(ds: Dataset, keyword: str) -> date | None:
    """A date (DA, also as ACR-NEMA wrote it), or that of a DT."""
    told = _DATE.fullmatch(text(ds, keyword) or "")
    try:
        return None if told is None else date(*map(int, told.groups()))
    except ValueError:
        return None


def _body_part(ds: Dataset) -> str | None:
    """``CHEST``, or what the data set calls another body part."""
    body_part = text(ds, "BodyPartExamined")
    if body_part is not None:
        is_chest = _CHEST.search(body_part) and not _BESIDE_THE_CHEST.search(body_part)
        return CHEST if is_chest else body_part
    codes = [
        code for item in items(ds, "AnatomicRegionSequence") for code in texts(item, "CodeValue")
    ]
    return CHEST if _CHEST_CODES.intersection(codes) else next(iter(codes), None)


def _view(ds: Dataset) -> View | None:
    """The view, if it is told and understood."""
    view = text(ds, "ViewPosition") or ""
    meanings = [
        meaning for item in items(ds, "ViewCodeSequence") for meaning in texts(item, "CodeMeaning")
    ]
    words = [view, *meanings]
    for pattern, term in _NOT_FRONTAL:
        if any(map(pattern.search, words)):
            return term
    for term, view_codes in _NOT_FRONTAL_CODES.items():
        if view in view_codes:
            return term
    # A row or a column that runs to the patient's front or back: seen from the side.
    orientation = texts(ds, "PatientOrientation")
    if len(orientation) == 2 and any(direction[0] in "AP" for direction in orientation):
        return "LATERAL"
    return next((term for pattern, term in _FRONTAL if any(map(pattern.search, words))), None)
