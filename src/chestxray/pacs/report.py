"""The structured report: what the model says of one radiograph, for archives and viewers to read.

A Comprehensive 3D SR after TID 1500 (PS3.16), with one measurement group (TID 1501). It is
complete, unverified and preliminary: nothing is missing, but no person has looked at it, and it is
not the definitive word. Codes are the standard's where it has them; ``99CHESTXRAY`` is only for
what it has not.

Does not: call a radiograph normal. The label NORMAL is reported as pneumonia absent, at the
threshold that is given beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from io import BytesIO
from typing import NamedTuple

from highdicom import sr
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from chestxray import __version__
from chestxray.inference import Manifest, Prediction
from chestxray.pacs.identity import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSTIC_USE,
    SourceIdentity,
    ascii_text,
    begin_answer,
    derived_uid,
    source_identity,
    text_of,
    unspoken,
)

SCHEME = "99CHESTXRAY"

PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain chest X-ray")
SOURCE = Code("260753009", "SCT", "Source")
PROBABILITY = codes.DCM.Probability
OPERATING_POINT = codes.DCM.CADOperatingPointDescription
COMMENT = codes.DCM.Comment
THRESHOLD = Code("threshold", SCHEME, "Threshold of probability")
UNCERTAIN = Code("uncertain", SCHEME, "Uncertain: close to threshold")
INPUT_CHECK_SCORE = Code("likeness", SCHEME, "Likeness to a chest radiograph (0 to 1)")
INPUT_CHECK_ACCEPTED = Code("accepted", SCHEME, "Accepted as a frontal chest radiograph")

MODALITIES = {
    "CR": Code("CR", "DCM", "Computed Radiography"),
    "DX": Code("DX", "DCM", "Digital Radiography"),
}

_SEQUENCE_HEAD_BYTES = 12  # tag, VR and length

_CONTAINS = sr.RelationshipTypeValues.CONTAINS
_HAS_ACQ_CONTEXT = sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
_HAS_CONCEPT_MOD = sr.RelationshipTypeValues.HAS_CONCEPT_MOD


@unspoken()
def make_report(
    source: Dataset, prediction: Prediction, manifest: Manifest, bundle_sha256: str
) -> Dataset:
    """The report on ``source``, a function of the arguments, ready to be written.

    Raises:
        DamagedFileError: the source lacks a UID that the report must refer to.
    """
    of, modality = source_identity(source), text_of(source, "Modality")
    ds = begin_answer("report", Comprehensive3DSRStorage, source, manifest, bundle_sha256)
    ds.Modality = "SR"
    ds.SeriesDescription = f"AI report - {NOT_FOR_DIAGNOSTIC_USE.lower()}"
    ds.CodingSchemeIdentificationSequence = [_coding_scheme()]
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag = "COMPLETE"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.VerificationFlag = "UNVERIFIED"
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(of)]
    said = said_of(of, prediction, bundle_sha256)
    form = _form(ascii_text(manifest.name), bundle_sha256, modality)
    ds.update(form.root)
    ds["ContentSequence"] = _filled_in(form, said)
    return ds


def _coding_scheme() -> Dataset:
    item = Dataset()
    item.CodingSchemeDesignator = SCHEME
    item.CodingSchemeName = "Codes of the chestxray classifier"
    item.CodingSchemeResponsibleOrganization = MANUFACTURER
    item.CodingSchemeVersion = __version__
    return item


def _evidence(of: SourceIdentity) -> Dataset:
    """Where the image that the content refers to is found (PS3.3 C.17.2.1)."""
    series = Dataset()
    series.SeriesInstanceUID = of.series_instance_uid
    series.ReferencedSOPSequence = [_reference(of)]
    study = Dataset()
    study.StudyInstanceUID = of.study_instance_uid
    study.ReferencedSeriesSequence = [series]
    return study


def _reference(of: SourceIdentity) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID = of.sop_class_uid
    item.ReferencedSOPInstanceUID = of.sop_instance_uid
    return item


class Said(NamedTuple):
    """What one report by a bundle says and another does not."""

    sop_class_uid: str
    sop_instance_uid: str
    tracking_uid: str
    probability: float
    threshold: float
    likeness: float
    pneumonia: Code
    uncertain: Code
    accepted: Code
    operating_point: str
    comment: str
    warnings: tuple[str, ...]


def said_of(of: SourceIdentity, prediction: Prediction, bundle_sha256: str) -> Said:
    """What the report on a source says when this was predicted."""
    check = prediction.input_check
    present = prediction.label == "PNEUMONIA"
    above = "at or above" if present else "below"
    operating_point = ascii_text(prediction.operating_point)
    return Said(
        sop_class_uid=of.sop_class_uid,
        sop_instance_uid=of.sop_instance_uid,
        tracking_uid=derived_uid("finding", of.sop_instance_uid, bundle_sha256),
        probability=prediction.probability,
        threshold=prediction.threshold,
        likeness=check.score,
        pneumonia=codes.SCT.Present if present else codes.SCT.Absent,
        uncertain=codes.SCT.Yes if prediction.uncertain else codes.SCT.No,
        accepted=codes.SCT.Yes if check.accepted else codes.SCT.No,
        operating_point=operating_point,
        comment=(
            f"{NOT_FOR_DIAGNOSTIC_USE}. {prediction.label}: "
            f"probability {prediction.probability:.3f}, "
            f"{above} threshold {prediction.threshold:.3f} ({operating_point})."
        ),
        warnings=tuple(map(ascii_text, prediction.warnings)),
    )


def content_of(said: Said, name: str, bundle_sha256: str, modality: str) -> Dataset:
    """The root of TID 1500 and all beneath it, as highdicom builds it."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", bundle_sha256),
        name=name,
        manufacturer_name=MANUFACTURER,
        model_name=name,
        serial_number=bundle_sha256,
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    report = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=observer),
        procedure_reported=CHEST_RADIOGRAPHY,
        imaging_measurements=[_measurement_group(said, name, bundle_sha256)],
    )
    root = Dataset(report[0])
    # Before the measurements, as TID 1500 orders them.
    root.ContentSequence.insert(-1, _image_library(said, modality))
    return root


def _image_library(said: Said, modality: str) -> sr.ContainerContentItem:
    """TID 1600 with the source alone, of which only what every radiograph has is described."""
    source = sr.ImageContentItem(
        SOURCE, said.sop_class_uid, said.sop_instance_uid, relationship_type=_CONTAINS
    )
    items: list[sr.ContentItem] = [source]
    if modality in MODALITIES:
        described = sr.CodeContentItem(codes.DCM.Modality, MODALITIES[modality], _HAS_ACQ_CONTEXT)
        items.insert(0, described)
    return _container(codes.DCM.ImageLibrary, [_container(codes.DCM.ImageLibraryGroup, items)])


def _container(name: Code, items: list[sr.ContentItem]) -> sr.ContainerContentItem:
    container = sr.ContainerContentItem(name, relationship_type=_CONTAINS)
    container.ContentSequence = sr.ContentSequence(items)
    return container


def _measurement_group(
    said: Said, name: str, bundle_sha256: str
) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501, and after it the texts for which it has no row (it is extensible)."""
    probability = _number(PROBABILITY, said.probability)
    probability[0].ContentSequence = sr.ContentSequence(
        [sr.CodeContentItem(codes.DCM.Finding, PNEUMONIA, _HAS_CONCEPT_MOD)]
    )
    threshold = _number(THRESHOLD, said.threshold)
    group = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(said.tracking_uid, "Pneumonia on the whole radiograph"),
        algorithm_id=sr.AlgorithmIdentification(
            name, __version__, [f"bundle_sha256={bundle_sha256}"]
        ),
        finding_sites=[sr.FindingSite(codes.SCT.Lung)],
        measurements=[probability, threshold, _number(INPUT_CHECK_SCORE, said.likeness)],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(PNEUMONIA, said.pneumonia),
            sr.QualitativeEvaluation(UNCERTAIN, said.uncertain),
            sr.QualitativeEvaluation(INPUT_CHECK_ACCEPTED, said.accepted),
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(said.sop_class_uid, said.sop_instance_uid)
        ],
    )
    group[0].ContentSequence.append(_text(OPERATING_POINT, said.operating_point))
    group[0].ContentSequence.extend(_text(COMMENT, text) for text in (said.comment, *said.warnings))
    return group


def _number(name: Code, value: float) -> sr.Measurement:
    measurement = sr.Measurement(name, value, codes.UCUM.NoUnits)
    measurement[0].MeasuredValueSequence[0].NumericValue = _decimal(value)
    return measurement


def _decimal(value: float) -> str:
    return f"{value:.4f}"


def _text(name: Code, text: str) -> sr.TextContentItem:
    return sr.TextContentItem(name, text, _CONTAINS)


# To build the tree takes highdicom 10 ms, and to encode it takes pydicom 10 ms. So both are done
# once for a bundle, with what no report says in the places that are to be filled in. The lengths of
# sequences and items are left undefined, so that none changes with what is filled in.

NOTHING_SAID = Said(
    sop_class_uid="0.1",
    sop_instance_uid="0.2",
    tracking_uid="0.3",
    probability=-1.0,
    threshold=-2.0,
    likeness=-3.0,
    pneumonia=Code("«pneumonia»", SCHEME, "«»"),
    uncertain=Code("«uncertain»", SCHEME, "«»"),
    accepted=Code("«accepted»", SCHEME, "«»"),
    operating_point="«operating point»",
    comment="«comment»",
    warnings=("«warning»",),
)
"""Texts that ``ascii_text`` would not let through."""


def places_of(said: Said) -> list[bytes]:
    """The encoded elements and items that say it, place by place."""
    numbers = (said.probability, said.threshold, said.likeness)
    return [
        _encoded(
            ReferencedSOPClassUID=said.sop_class_uid, ReferencedSOPInstanceUID=said.sop_instance_uid
        ),
        _encoded(UID=said.tracking_uid),
        *(_encoded(FloatingPointValue=number, NumericValue=_decimal(number)) for number in numbers),
        *map(_encoded_code, (said.pneumonia, said.uncertain, said.accepted)),
        _encoded(TextValue=said.operating_point),
        _encoded(TextValue=said.comment),
        b"".join(map(_encoded_comment, said.warnings)),
    ]


class _Form(NamedTuple):
    """The content of a report that says nothing, split at the places that are to be filled in."""

    root: Dataset
    content: RawDataElement
    pieces: list[bytes]
    places: list[bytes]


@lru_cache(maxsize=16)
def _form(name: str, bundle_sha256: str, modality: str) -> _Form:
    root = content_of(NOTHING_SAID, name, bundle_sha256, modality)
    _leave_lengths_undefined(root.ContentSequence)
    with BytesIO(_bytes_of(root)) as buffer:  # what is read is not converted until it is asked for
        root = read_dataset(buffer, is_implicit_VR=False, is_little_endian=True)
    places = places_of(NOTHING_SAID)
    any_place = b"(" + b"|".join(map(re.escape, places)) + b")"
    content = root.get_item("ContentSequence")
    assert isinstance(content, RawDataElement)  # noqa: S101
    return _Form(root, content, re.split(any_place, content.value or b""), places)


def _filled_in(form: _Form, said: Said) -> RawDataElement:
    filled = dict(zip(form.places, places_of(said), strict=True))
    value = b"".join(filled.get(piece, piece) for piece in form.pieces)
    return form.content._replace(value=value, length=len(value))


def _leave_lengths_undefined(items: Iterable[Dataset]) -> None:
    for item in items:
        item.is_undefined_length_sequence_item = True
        for element in item:
            if element.VR == "SQ":
                element.is_undefined_length = True
                _leave_lengths_undefined(element.value)


def _encoded(**elements: str | float) -> bytes:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return _bytes_of(item)


@lru_cache(maxsize=16)
def _encoded_code(code: Code) -> bytes:
    return _encoded(
        CodeValue=code.value,
        CodingSchemeDesignator=code.scheme_designator,
        CodeMeaning=code.meaning,
    )


@lru_cache(maxsize=64)
def _encoded_comment(text: str) -> bytes:
    """A whole item of the measurement group."""
    holder = Dataset()
    holder.ContentSequence = sr.ContentSequence([_text(COMMENT, text)])
    _leave_lengths_undefined(holder.ContentSequence)
    return _bytes_of(holder)[_SEQUENCE_HEAD_BYTES:]


def _bytes_of(ds: Dataset) -> bytes:
    with DicomBytesIO() as buffer:
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_dataset(buffer, ds)
        return buffer.getvalue()
