"""What a data set says of how its image was made, in standard terms.

What the words mean is ``terms``' table.

Sources: PS3.3 C.7.3.1 (Modality), C.8.1.1, C.8.11.3 and C.8.11.5 (DX), C.7.6.1.1.1 (Patient
Orientation). Does not: decide what a bundle may judge (``assessment`` does), or read who the
patient is, the age apart.
"""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple, cast

from pydicom import Dataset

from chestxray.errors import ColourError, MultiFrameError, NoPixelDataError
from chestxray.imaging.dicom.elements import (
    encodings,
    integer,
    items,
    number,
    stored,
    text,
    texts,
)
from chestxray.imaging.radiograph import Acquisition, View
from chestxray.imaging.terms import (
    CHEST,
    body_part_of,
    coded_body_part,
    is_frontal,
    is_plainly_the_chest,
    modality_of,
    view_of,
)

NO_MODALITY = "the file does not say its modality"
FOR_PROCESSING = (
    "the image is meant for processing, not for presentation: its grey levels may be the detector's"
)

UNKNOWN_MODALITY = (
    "the modality is given in words that are not known here: "
    "only the picture tells whether it is a radiograph"
)
UNKNOWN_BODY_PART = (
    "the body part is given in words that are not known here: "
    "only the picture tells whether it is the chest"
)
CHEST_IN_OTHER_WORDS = (
    "the body part is given in other words than DICOM's, which were taken for the chest"
)
UNKNOWN_VIEW = (
    "the view is given in words that are not known here: it may be none that the model knows"
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
    modality, body_part, view = _modality(ds), _body_part(ds), _view(ds)
    return Acquisition(
        *(modality.term, body_part.term, cast("View | None", view.term), age_years(ds)),
        attributes=(modality.attribute, body_part.attribute, view.attribute),
    )


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
    told = _modality(ds), _body_part(ds), _view(ds)
    warnings = [one.warning for one in told if one.warning is not None]
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


class _Told(NamedTuple):
    """A term, of which attribute it is told, and what a reader should know of that."""

    term: str | None
    attribute: str
    warning: str | None = None


def _modality(ds: Dataset) -> _Told:
    word = text(ds, "Modality")
    term = modality_of(word or "")
    warning = NO_MODALITY if word is None else None if term else UNKNOWN_MODALITY
    return _Told(term, "Modality", warning)


def _body_part(ds: Dataset) -> _Told:
    words = " ".join(texts(ds, "BodyPartExamined", encodings(ds)))
    if term := body_part_of(words):
        plain = term != CHEST or is_plainly_the_chest(words)
        return _Told(term, "BodyPartExamined", None if plain else CHEST_IN_OTHER_WORDS)
    regions = items(ds, "AnatomicRegionSequence")
    codes = [code for item in regions for code in texts(item, "CodeValue")]
    meanings = _meanings(ds, regions)
    terms = [*map(coded_body_part, codes), *map(body_part_of, meanings)]
    term = CHEST if CHEST in terms else next(filter(None, terms), None)
    warning = UNKNOWN_BODY_PART if term is None and (words or codes) else None
    return _Told(term, "AnatomicRegionSequence", warning)


def _view(ds: Dataset) -> _Told:
    """The first of all that tell it, what speaks against a frontal view before what speaks for."""
    words = [
        (" ".join(texts(ds, "ViewPosition", encodings(ds))), "ViewPosition"),
        *((said, "ViewCodeSequence") for said in _meanings(ds, items(ds, "ViewCodeSequence"))),
    ]
    told = [_Told(view_of(said), attribute) for said, attribute in words]
    # A row or a column that runs to the patient's front or back: seen from the side.
    orientation = texts(ds, "PatientOrientation")
    if len(orientation) == 2 and any(direction[0] in "AP" for direction in orientation):
        told.append(_Told("LATERAL", "PatientOrientation"))
    known = [one for one in told if one.term is not None]
    if known:
        return min(known, key=lambda one: one.term in ("AP", "PA"))
    unknown = any(said and not is_frontal(said) for said, _ in words)
    return _Told(None, "ViewPosition", UNKNOWN_VIEW if unknown else None)


def _meanings(ds: Dataset, coded: list[Dataset]) -> list[str]:
    return [" ".join(texts(item, "CodeMeaning", encodings(ds))) for item in coded]
