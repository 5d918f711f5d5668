"""What a data set says of its image decides whether it is decoded at all.

Given values are believed; where one is not given, the input check is what remains. Body parts and
views are free text in practice ("CHEST_PA", "W034Thorax"), so they are told by what they contain.

Sources: PS3.3 C.7.3.1 (Modality), C.8.1.1, C.8.11.3 and C.8.11.5 (DX), C.7.6.1.1.1 (Patient
Orientation), PS3.16 CID 4010 (DX View). Does not: read who the patient is, the age apart.
"""

from __future__ import annotations

import re
from datetime import date

from pydicom import Dataset

from chestxray.errors import (
    ColourError,
    MultiFrameError,
    NoPixelDataError,
    WrongBodyPartError,
    WrongModalityError,
    WrongViewError,
)
from chestxray.imaging.dicom.elements import integer, items, number, stored, text, texts

NO_AGE = "the file does not give the patient's age"
NO_MODALITY = "the file does not say its modality"
FOR_PROCESSING = (
    "the image is meant for processing, not for presentation: its grey levels may be the detector's"
)

_MODALITIES = ("CR", "DX")
_CHEST = re.compile(r"CHEST|THORA|TORAX|TORAC|LUNG")
_BESIDE_THE_CHEST = re.compile(r"SPINE|LUMB|BONE|RIB|VERTEB")
_CHEST_CODES = {"51185008", "T-D3000", "39607008", "T-28000"}  # thorax, lung; SNOMED CT and RT

_NOT_FRONTAL = re.compile(r"LAT|OBL|DECUB|LORD|AXIAL|SAGITTAL|TANGENTIAL")
_NOT_FRONTAL_CODES = {
    "LL",
    "RL",
    "LLD",
    "RLD",
    "LAO",
    "RAO",
    "LPO",
    "RPO",
    "LLO",
    "RLO",
    "LO",
    "RO",
}

_DAYS = {"D": 1.0, "W": 7.0, "M": 30.4375, "Y": 365.25}
_AGE = re.compile(r"(\d{1,3})([DWMY]?)")  # without a unit in many a file: years


def check_acquisition(ds: Dataset) -> list[str]:
    """Refuse what cannot be a single grey frontal chest radiograph; the rest as warnings.

    Raises:
        WrongModalityError, WrongBodyPartError, WrongViewError, MultiFrameError, ColourError,
        NoPixelDataError: the first that holds, in this order.
    """
    warnings = []
    modality = text(ds, "Modality")
    if modality is None:
        warnings.append(NO_MODALITY)
    elif modality not in _MODALITIES:
        raise WrongModalityError("only computed and digital radiography (CR, DX) is read")
    _check_body_part(ds)
    _check_view(ds)
    if (number(ds, "NumberOfFrames") or 1) > 1:
        raise MultiFrameError("an image of several frames is not read")
    photometric = text(ds, "PhotometricInterpretation") or "MONOCHROME2"
    if (integer(ds, "SamplesPerPixel") or 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise ColourError("an image in colour is not read")
    if stored(ds, "PixelData") is None:
        raise NoPixelDataError("the file has no pixel data")
    if age_years(ds) is None:
        warnings.append(NO_AGE)
    if text(ds, "PresentationIntentType") == "FOR PROCESSING":
        warnings.append(FOR_PROCESSING)
    return warnings


def age_years(ds: Dataset) -> float | None:
    """The patient's age when the image was made, if the data set tells it."""
    age = _AGE.fullmatch(text(ds, "PatientAge") or "")
    if age is not None:
        return int(age[1]) * _DAYS[age[2] or "Y"] / _DAYS["Y"]
    born = _date(ds, "PatientBirthDate")
    for keyword in ("AcquisitionDate", "ContentDate", "SeriesDate", "StudyDate"):
        made = _date(ds, keyword)
        if born is not None and made is not None and made >= born:
            return (made - born).days / _DAYS["Y"]
    return None


def _date(ds: Dataset, keyword: str) -> date | None:
    try:
        return date.fromisoformat(text(ds, keyword) or "")
    except ValueError:
        return None


def _check_body_part(ds: Dataset) -> None:
    body_part = text(ds, "BodyPartExamined")
    if body_part is not None:
        if not _CHEST.search(body_part) or _BESIDE_THE_CHEST.search(body_part):
            raise WrongBodyPartError("the body part examined is not the chest")
        return
    codes = [
        code for item in items(ds, "AnatomicRegionSequence") for code in texts(item, "CodeValue")
    ]
    if codes and not _CHEST_CODES.intersection(codes):
        raise WrongBodyPartError("the anatomic region is not the chest")


def _check_view(ds: Dataset) -> None:
    view = text(ds, "ViewPosition") or ""
    meanings = [
        meaning for item in items(ds, "ViewCodeSequence") for meaning in texts(item, "CodeMeaning")
    ]
    if view in _NOT_FRONTAL_CODES or any(map(_NOT_FRONTAL.search, [view, *meanings])):
        raise WrongViewError("the view is not frontal")
    # A row or a column that runs to the patient's front or back: seen from the side.
    orientation = texts(ds, "PatientOrientation")
    if len(orientation) == 2 and any(direction[0] in "AP" for direction in orientation):
        raise WrongViewError("the patient is seen from the side")
