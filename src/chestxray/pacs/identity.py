"""What an answer is, when it was made, and whose it is: functions of its source and its author.

An answer made twice, or sent twice, is therefore one object in an archive. Nothing here asks the
clock or draws at random.

Does not: repeat anything of the source in an error, or hand on more of its patient and study than
the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1) need to file the answer beside it.
"""

from __future__ import annotations

import hashlib
import re
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from typing import Any, Literal, NamedTuple

from pydicom import config
from pydicom.charset import convert_encodings, default_encoding, python_encoding
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import PersonName, validate_value

from chestxray import __version__
from chestxray.errors import DamagedFileError
from chestxray.inference import Predictor

Kind = Literal["report", "overlay"]

MANUFACTURER = "chestxray"

NOT_FOR_DIAGNOSTIC_USE = "NOT FOR DIAGNOSTIC USE"

SERIES_NUMBERS: dict[Kind, int] = {"report": 9001, "overlay": 9002}
"""Far behind those of modalities, so that an answer never comes before the radiograph."""

IMPLEMENTATION_UID = UID("2.25.162912732399805139973608862037258410769")
"""Of this package (PS3.7 D.3.3.2); drawn once."""

_UID = re.compile(r"[0-9.]{1,64}")
_DATE = re.compile(r"\d{8}")
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")

_WHEN = (
    ("ContentDate", "ContentTime"),
    ("AcquisitionDateTime", None),
    ("AcquisitionDate", "AcquisitionTime"),
    ("InstanceCreationDate", "InstanceCreationTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
)
"""Where a source says when it was made, nearest to the radiograph first."""

# Type 2 of the Patient and General Study modules, all but PatientID.
_TYPE_2 = (
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
_TYPE_3 = ("IssuerOfPatientID", "StudyDescription")


@contextmanager
def unspoken() -> Iterator[None]:
    """pydicom would warn of a wrong value, and log it, in words that repeat it."""
    with warnings.catch_warnings(), config.disable_value_validation():
        warnings.simplefilter("ignore")
        yield


class Author(NamedTuple):
    """Who answers: a bundle, or several together. ``created`` is ISO 8601, and ``name`` ASCII."""

    name: str
    created: str
    sha256: str


def author_of(predictors: Sequence[Predictor]) -> Author:
    """The bundle at work, or several as one: the SHA-256 of theirs, as old as the first."""
    identities = [predictor.bundle_sha256 for predictor in predictors]
    several = hashlib.sha256("\n".join(identities).encode()).hexdigest()
    return Author(
        name=" + ".join(ascii_text(predictor.manifest.name) for predictor in predictors),
        created=predictors[0].manifest.created,
        sha256=identities[0] if len(identities) == 1 else several,
    )


class SourceIdentity(NamedTuple):
    """The UIDs by which an answer refers to its source."""

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str


def source_identity(source: Dataset) -> SourceIdentity:
    """The UIDs of a source; of one with several values, the first.

    A source without a series has one invented for it, a function of its SOP Instance UID, because
    a reference needs one (PS3.3 C.17.2.1).

    Raises:
        DamagedFileError: it has no SOP Class, SOP Instance or Study Instance UID.
    """
    sop_class = _needed_uid(source, "SOPClassUID")
    instance = _needed_uid(source, "SOPInstanceUID")
    study = _needed_uid(source, "StudyInstanceUID")
    series = text_of(source, "SeriesInstanceUID")
    if not _UID.fullmatch(series):
        series = derived_uid("source series", instance)
    return SourceIdentity(sop_class, instance, study, series)


def text_of(source: Dataset, keyword: str) -> str:
    """The first value of an attribute as text, which must be ASCII; empty where there is none."""
    value = source.get_item(keyword).value if keyword in source else None
    if isinstance(value, bytes):  # as it is stored: what pydicom need not convert costs nothing
        value = value.decode("latin-1").split("\\")
    if isinstance(value, list | MultiValue):
        value = next(iter(value), None)
    return "" if value is None else str(value).strip(" \0")


def derived_uid(*parts: str) -> UID:
    """The UID of what ``parts`` name: ``2.25.`` and a UUID (PS3.5 B.2), from their SHA-256."""
    digest = hashlib.sha256("\n".join(parts).encode()).digest()
    return UID(f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}")


def sop_instance_uid(kind: Kind, source: Dataset, author_sha256: str) -> UID:
    """Of the answer of ``kind`` to one source instance by one author."""
    return derived_uid(kind, source_identity(source).sop_instance_uid, author_sha256)


def series_instance_uid(kind: Kind, source: Dataset, author_sha256: str) -> UID:
    """Of the answers of ``kind`` to one source series by one author."""
    return derived_uid(kind, "series", source_identity(source).series_instance_uid, author_sha256)


def timestamp(source: Dataset, author: Author) -> tuple[str, str]:
    """The date (DA) and time (TM) of an answer: its source's, as near to the radiograph as known.

    What is malformed there is passed over; without any, the answer is as old as its author. A date
    without a time is midnight.
    """
    for date_keyword, time_keyword in _WHEN:
        date = text_of(source, date_keyword)
        if time_keyword is None:
            date, time = date[:8], re.sub(r"[+-]\d{4}$", "", date[8:])
        else:
            time = text_of(source, time_keyword)
        if _is_date(date) and _TIME.fullmatch(time or "000000"):
            return date, time or "000000"
    created = datetime.fromisoformat(author.created)
    return created.strftime("%Y%m%d"), created.strftime("%H%M%S")


@unspoken()
def begin_answer(kind: Kind, sop_class_uid: str, source: Dataset, author: Author) -> Dataset:
    """A data set with all that an answer has whatever its kind, and its file meta information.

    These are the modules Patient, General Study, General Series (but Modality), General Equipment
    and SOP Common. Attributes of type 2 that the source lacks or has wrong are empty. PatientID is
    handed on even if it is wrong: an archive would file the answer under somebody else otherwise.

    Raises:
        DamagedFileError: see :func:`source_identity`.
    """
    date, time = timestamp(source, author)
    ds = _patient_and_study(source)
    ds.SOPClassUID = sop_class_uid
    ds.SOPInstanceUID = sop_instance_uid(kind, source, author.sha256)
    ds.InstanceCreationDate, ds.InstanceCreationTime = date, time
    ds.SeriesInstanceUID = series_instance_uid(kind, source, author.sha256)
    ds.SeriesNumber = SERIES_NUMBERS[kind]
    ds.SeriesDate, ds.SeriesTime = date, time
    ds.ContentDate, ds.ContentTime = date, time
    instance_number = text_of(source, "InstanceNumber")
    ds.InstanceNumber = instance_number if re.fullmatch(r"\d{1,9}", instance_number) else "1"
    ds.Manufacturer = MANUFACTURER
    ds.ManufacturerModelName = author.name[:64]
    ds.DeviceSerialNumber = author.sha256
    ds.SoftwareVersions = __version__
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    ds.file_meta.ImplementationVersionName = f"chestxray{__version__}"[:16]
    return ds


def ascii_text(text: str) -> str:
    """``text`` in the characters that every Specific Character Set has, the source's among them."""
    for sign, words in (("≥", ">="), ("≤", "<="), ("–", "-"), ("×", "x"), ("’", "'")):
        text = text.replace(sign, words)
    return text.encode("ascii", "replace").decode()


def _patient_and_study(source: Dataset) -> Dataset:
    ds = Dataset()
    character_set = _value(source, "SpecificCharacterSet")
    if character_set:
        terms = [character_set] if isinstance(character_set, str) else list(character_set)
        known = all(term in python_encoding for term in terms)
        # What pydicom made of names in an unknown character set can be written in this one.
        ds.SpecificCharacterSet = character_set if known else "ISO_IR 192"
    ds.StudyInstanceUID = source_identity(source).study_instance_uid
    for keyword in (*_TYPE_2, *_TYPE_3):
        value = _valid(source, keyword)
        if value is not None or keyword in _TYPE_2:
            setattr(ds, keyword, value)
    patient_id = _value(source, "PatientID")
    ds.PatientID = patient_id if isinstance(patient_id, str | MultiValue) else None
    # pydicom writes what is still encoded as it is where it is encoded as the whole will be.
    encodings = convert_encodings(ds.SpecificCharacterSet) if character_set else default_encoding
    ds.set_original_encoding(
        is_implicit_vr=False, is_little_endian=True, character_encoding=encodings
    )
    return ds


def _valid(source: Dataset, keyword: str) -> str | PersonName | None:
    """The one value of an attribute, or None where it is missing, empty or not valid."""
    value = _value(source, keyword)
    if not isinstance(value, str | PersonName) or not value or "\ufffd" in str(value):
        return None
    try:
        validate_value(dictionary_VR(keyword), str(value), config.RAISE)
    except ValueError:
        return None
    if keyword.endswith("Date") and not _is_date(str(value)):
        return None
    if keyword.endswith("Time") and not _TIME.fullmatch(str(value)):
        return None
    if keyword == "PatientSex" and value not in {"M", "F", "O"}:
        return None
    return value


def _value(source: Dataset, keyword: str) -> Any:
    """What pydicom makes of an attribute; None where it is missing or pydicom makes nothing.

    To be called in ``unspoken``.
    """
    try:
        return source.get(keyword)
    except (ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError):
        return None


def _needed_uid(source: Dataset, keyword: str) -> str:
    value = text_of(source, keyword)
    if not _UID.fullmatch(value):
        raise DamagedFileError(f"the file has no {keyword} that an answer could refer to")
    return value


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True
