"""The structured report: what bundles say of one radiograph, for archives and viewers to read.

A Comprehensive 3D SR after TID 1500 (PS3.16), with a measurement group (TID 1501) for each bundle
that answers. It is complete, unverified and preliminary: nothing is missing, but no person has
looked at it, and it is not the definitive word. Codes are the standard's where it has them, and the
bundle's for its finding; ``99CHESTXRAY`` is only for what neither has.

Does not: call a radiograph normal. A bundle's negative label is reported as its finding absent, at
the threshold that is given beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
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
from chestxray.assessment import Assessment
from chestxray.inference import Predictor
from chestxray.inference.bundle import CodedConcept
from chestxray.inference.rendering import NOT_VALIDATED
from chestxray.pacs.identity import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSTIC_USE,
    Author,
    SourceIdentity,
    ascii_text,
    author_of,
    begin_answer,
    derived_uid,
    source_identity,
    text_of,
    unspoken,
)

SCHEME = "99CHESTXRAY"

CHEST_RADIOGRAPHY = Code("399208008", "SCT", "Plain chest X-ray")
SOURCE = Code("260753009", "SCT", "Source")
PROBABILITY = codes.DCM.Probability
OPERATING_POINT = codes.DCM.CADOperatingPointDescription
COMMENT = codes.DCM.Comment
THRESHOLD = Code("threshold", SCHEME, "Threshold of probability")
UNCERTAIN = Code("uncertain", SCHEME, "Uncertain: close to threshold")
INPUT_CHECK_SCORE = Code("likeness", SCHEME, "Likeness to a chest radiograph (0 to 1)")
INPUT_CHECK_ACCEPTED = Code("accepted", SCHEME, "Accepted as a frontal chest radiograph")

NO_HEATMAP = "no heatmap is given: this model's is not validated"

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
    source: Dataset, assessments: Sequence[Assessment], *, unvalidated_heatmaps: bool = False
) -> Dataset:
    """The report on ``source``, a function of the arguments, ready to be written.

    It has the answer of each bundle that has one, and names those that have none; all of them
    together are its author. One answer at least there must be. Where a bundle's evidence is not
    validated it says so, and with ``unvalidated_heatmaps`` that there is an overlay all the same.

    Raises:
        DamagedFileError: the source lacks a UID that the report must refer to.
    """
    of, modality = source_identity(source), text_of(source, "Modality")
    author = author_of([assessment.assessor.predictor for assessment in assessments])
    ds = begin_answer("report", Comprehensive3DSRStorage, source, author)
    ds.Modality = "SR"
    ds.SeriesDescription = f"AI report - {NOT_FOR_DIAGNOSTIC_USE.lower()}"
    ds.CodingSchemeIdentificationSequence = [_coding_scheme()]
    ds.ReferencedPerformedProcedureStepSequence = []
    ds.PerformedProcedureCodeSequence = []
    ds.CompletionFlag = "COMPLETE"
    ds.PreliminaryFlag = "PRELIMINARY"
    ds.VerificationFlag = "UNVERIFIED"
    ds.CurrentRequestedProcedureEvidenceSequence = [_evidence(of)]
    answered = [assessment for assessment in assessments if assessment.error is None]
    algorithms = tuple(algorithm_of(assessment.assessor.predictor) for assessment in answered)
    form = _form(author, algorithms, modality)
    ds.update(form.root)
    told = told_of(of, assessments, unvalidated_heatmaps=unvalidated_heatmaps)
    ds["ContentSequence"] = _filled_in(form, told)
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


class Algorithm(NamedTuple):
    """A bundle as its measurement groups name it."""

    name: str
    bundle_sha256: str
    finding: Code
    site: Code | None


def algorithm_of(predictor: Predictor) -> Algorithm:
    finding = predictor.manifest.finding
    return Algorithm(
        ascii_text(predictor.manifest.name),
        predictor.bundle_sha256,
        _code_of(finding.code),
        None if finding.site is None else _code_of(finding.site),
    )


def _code_of(concept: CodedConcept) -> Code:
    return Code(*map(ascii_text, (concept.value, concept.scheme, concept.meaning)))


class Said(NamedTuple):
    """What one measurement group by a bundle says and another does not."""

    tracking_uid: str
    probability: float
    threshold: float
    likeness: float
    finding: Code
    uncertain: Code
    accepted: Code
    operating_point: str
    comment: str
    warnings: tuple[str, ...]


class Told(NamedTuple):
    """What one report by the same bundles tells and another does not."""

    sop_class_uid: str
    sop_instance_uid: str
    groups: tuple[Said, ...]
    not_assessed: tuple[str, ...]


def told_of(
    of: SourceIdentity, assessments: Sequence[Assessment], *, unvalidated_heatmaps: bool = False
) -> Told:
    """What the report on a source tells of these."""
    if_unvalidated = NOT_VALIDATED if unvalidated_heatmaps else NO_HEATMAP
    return Told(
        of.sop_class_uid,
        of.sop_instance_uid,
        tuple(_said_of(of, each, if_unvalidated) for each in assessments if each.error is None),
        tuple(_not_assessed(each) for each in assessments if each.error is not None),
    )


def _not_assessed(assessment: Assessment) -> str:
    algorithm, error = algorithm_of(assessment.assessor.predictor), assessment.error
    assert error is not None  # noqa: S101 - its callers look
    return ascii_text(
        f"{algorithm.finding.meaning} is not assessed by {algorithm.name} "
        f"(bundle_sha256={algorithm.bundle_sha256}): {error.code}, {error}"
    )


def _said_of(of: SourceIdentity, assessment: Assessment, if_unvalidated: str) -> Said:
    _, prediction = assessment.answer
    check = prediction.input_check
    evidence = assessment.assessor.predictor.manifest.evidence
    of_heatmap = () if evidence.validated else (if_unvalidated,)
    above = "at or above" if prediction.positive else "below"
    operating_point = ascii_text(prediction.operating_point)
    return Said(
        tracking_uid=derived_uid(
            "finding", of.sop_instance_uid, assessment.assessor.predictor.bundle_sha256
        ),
        probability=prediction.probability,
        threshold=prediction.threshold,
        likeness=check.score,
        finding=codes.SCT.Present if prediction.positive else codes.SCT.Absent,
        uncertain=codes.SCT.Yes if prediction.uncertain else codes.SCT.No,
        accepted=codes.SCT.Yes if check.accepted else codes.SCT.No,
        operating_point=operating_point,
        comment=(
            f"{NOT_FOR_DIAGNOSTIC_USE}. {prediction.label}: "
            f"probability {prediction.probability:.3f}, "
            f"{above} threshold {prediction.threshold:.3f} ({operating_point})."
        ),
        warnings=tuple(map(ascii_text, (*assessment.warnings, *of_heatmap))),
    )


def content_of(
    told: Told, author: Author, algorithms: Sequence[Algorithm], modality: str
) -> Dataset:
    """The root of TID 1500 and all beneath it, as highdicom builds it.

    After it the texts for which it has no row (it is extensible).
    """
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=derived_uid("device", author.sha256),
        name=author.name,
        manufacturer_name=MANUFACTURER,
        model_name=author.name,
        serial_number=author.sha256,
    )
    observer = sr.ObserverContext(codes.DCM.Device, device)
    report = sr.MeasurementReport(
        sr.ObservationContext(observer_device_context=observer),
        procedure_reported=CHEST_RADIOGRAPHY,
        imaging_measurements=[
            _measurement_group(told, said, algorithm)
            for said, algorithm in zip(told.groups, algorithms, strict=True)
        ],
    )
    root = Dataset(report[0])
    # Before the measurements, as TID 1500 orders them.
    root.ContentSequence.insert(-1, _image_library(told, modality))
    root.ContentSequence.extend(_text(COMMENT, text) for text in told.not_assessed)
    return root


def _image_library(told: Told, modality: str) -> sr.ContainerContentItem:
    """TID 1600 with the source alone, of which only what every radiograph has is described."""
    source = sr.ImageContentItem(
        SOURCE, told.sop_class_uid, told.sop_instance_uid, relationship_type=_CONTAINS
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
    told: Told, said: Said, algorithm: Algorithm
) -> sr.MeasurementsAndQualitativeEvaluations:
    """TID 1501, and after it the texts for which it has no row (it is extensible)."""
    finding = algorithm.finding
    probability = _number(PROBABILITY, said.probability)
    probability[0].ContentSequence = sr.ContentSequence(
        [sr.CodeContentItem(codes.DCM.Finding, finding, _HAS_CONCEPT_MOD)]
    )
    threshold = _number(THRESHOLD, said.threshold)
    group = sr.MeasurementsAndQualitativeEvaluations(
        sr.TrackingIdentifier(said.tracking_uid, f"{finding.meaning} on the whole radiograph"),
        algorithm_id=sr.AlgorithmIdentification(
            algorithm.name, __version__, [f"bundle_sha256={algorithm.bundle_sha256}"]
        ),
        finding_sites=None if algorithm.site is None else [sr.FindingSite(algorithm.site)],
        measurements=[probability, threshold, _number(INPUT_CHECK_SCORE, said.likeness)],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(finding, said.finding),
            sr.QualitativeEvaluation(UNCERTAIN, said.uncertain),
            sr.QualitativeEvaluation(INPUT_CHECK_ACCEPTED, said.accepted),
        ],
        source_images=[
            sr.SourceImageForMeasurementGroup(told.sop_class_uid, told.sop_instance_uid)
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
# once for the bundles that answer, with what no report tells in the places that are to be filled
# in. The lengths of sequences and items are left undefined, so that none changes with what is
# filled in.


def nothing_told(n_groups: int) -> Told:
    """A report of which everything is a place: texts that ``ascii_text`` would not let through."""
    groups = tuple(
        Said(
            tracking_uid=f"0.3.{group}",
            probability=-3.0 * group - 1,
            threshold=-3.0 * group - 2,
            likeness=-3.0 * group - 3,
            finding=Code(f"«finding {group}»", SCHEME, "«»"),
            uncertain=Code(f"«uncertain {group}»", SCHEME, "«»"),
            accepted=Code(f"«accepted {group}»", SCHEME, "«»"),
            operating_point=f"«operating point {group}»",
            comment=f"«comment {group}»",
            warnings=(f"«warning {group}»",),
        )
        for group in range(n_groups)
    )
    return Told("0.1", "0.2", groups, ("«not assessed»",))


def places_of(told: Told) -> list[bytes]:
    """The encoded elements and items that tell it, place by place."""
    return [
        _encoded(
            ReferencedSOPClassUID=told.sop_class_uid, ReferencedSOPInstanceUID=told.sop_instance_uid
        ),
        *(place for said in told.groups for place in _places_of_group(said)),
        b"".join(map(_encoded_comment, told.not_assessed)),
    ]


def _places_of_group(said: Said) -> list[bytes]:
    numbers = (said.probability, said.threshold, said.likeness)
    return [
        _encoded(UID=said.tracking_uid),
        *(_encoded(FloatingPointValue=number, NumericValue=_decimal(number)) for number in numbers),
        *map(_encoded_code, (said.finding, said.uncertain, said.accepted)),
        _encoded(TextValue=said.operating_point),
        _encoded(TextValue=said.comment),
        b"".join(map(_encoded_comment, said.warnings)),
    ]


class _Form(NamedTuple):
    """The content of a report that tells nothing, split at the places that are to be filled in."""

    root: Dataset
    content: RawDataElement
    pieces: list[bytes]
    places: list[bytes]


@lru_cache(maxsize=64)
def _form(author: Author, algorithms: tuple[Algorithm, ...], modality: str) -> _Form:
    nothing = nothing_told(len(algorithms))
    root = content_of(nothing, author, algorithms, modality)
    _leave_lengths_undefined(root.ContentSequence)
    with BytesIO(_bytes_of(root)) as buffer:  # what is read is not converted until it is asked for
        root = read_dataset(buffer, is_implicit_VR=False, is_little_endian=True)
    places = places_of(nothing)
    any_place = b"(" + b"|".join(map(re.escape, places)) + b")"
    content = root.get_item("ContentSequence")
    assert isinstance(content, RawDataElement)  # noqa: S101
    return _Form(root, content, re.split(any_place, content.value or b""), places)


def _filled_in(form: _Form, told: Told) -> RawDataElement:
    filled = dict(zip(form.places, places_of(told), strict=True))
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
    """A whole item of the measurement group, or of the root."""
    holder = Dataset()
    holder.ContentSequence = sr.ContentSequence([_text(COMMENT, text)])
    _leave_lengths_undefined(holder.ContentSequence)
    return _bytes_of(holder)[_SEQUENCE_HEAD_BYTES:]


def _bytes_of(ds: Dataset) -> bytes:
    with DicomBytesIO() as buffer:
        buffer.is_implicit_VR, buffer.is_little_endian = False, True
        write_dataset(buffer, ds)
        return buffer.getvalue()
