"""The structured report says what the model said, in the standard's words, of the right image."""

import hashlib
import logging
import os
import shutil
import subprocess
import sys
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from highdicom.sr import srread
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from chestxray.assessment import Assessment
from chestxray.errors import DamagedFileError, OutsidePopulationError, WrongViewError
from chestxray.inference import InputCheckResult, Prediction
from chestxray.pacs.identity import author_of, derived_uid, source_identity
from chestxray.pacs.report import (
    INPUT_CHECK_ACCEPTED,
    INPUT_CHECK_SCORE,
    PROBABILITY,
    SCHEME,
    THRESHOLD,
    UNCERTAIN,
    algorithm_of,
    content_of,
    make_report,
    nothing_told,
    places_of,
    told_of,
)
from factories.bundles import OTHER_FINDING
from factories.dicom_files import CHEST, DX, data_set, dicom
from factories.pacs import assessed, tiny_predictor

BUNDLE, OTHER_BUNDLE = "a" * 64, "b" * 64
TINY = tiny_predictor(BUNDLE, validated=True)
UNVALIDATED = tiny_predictor(BUNDLE)
OTHER = tiny_predictor(OTHER_BUNDLE, seed=1, validated=True, name="other", finding=OTHER_FINDING)
PNEUMONIA = Code("233604007", "SCT", "Pneumonia")
EFFUSION = Code("60046008", "SCT", "Pleural effusion")
ADULT = OutsidePopulationError("the patient is not of an age that the model knows")

FEW: dict[str, Any] = {
    keyword: None
    for keyword in CHEST
    if keyword not in {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"}
}

WRONG: dict[str, Any] = {
    "PatientAge": "62",
    "PatientBirthDate": "4f2a19zz",
    "PatientSex": "female",
    "StudyDate": "2026-01-02",
    "StudyTime": "25:61",
    "AccessionNumber": "A" * 17,
    "SeriesInstanceUID": ["1.2.5", "1.2.6"],
    "SOPInstanceUID": ["1.2.3", "1.2.4"],
    "SpecificCharacterSet": "ISO_IR 999",
    "PatientOrientation": "L",
}

SOURCES: dict[str, dict[str, Any]] = {
    "cr": {},
    "dx": {"SOPClassUID": DX, "Modality": "DX"},
    "few attributes": FEW,
    "wrong attributes": WRONG,
    "lossy": {"LossyImageCompression": "01", "BurnedInAnnotation": "YES"},
    "latin": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Buc^Jérôme"},
    "chinese": {"SpecificCharacterSet": "GB18030", "PatientName": "Wang^XiaoDong=王^小东"},
    "japanese": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    },
}


def source(**attributes: Any) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(BytesIO(dicom(**attributes)))


def prediction(**changes: Any) -> Prediction:
    facts: dict[str, Any] = {
        "label": "PNEUMONIA",
        "positive": True,
        "probability": 0.97123,
        "threshold": 0.5,
        "operating_point": "balanced",
        "uncertain": False,
        "inverted": False,
        "input_check": InputCheckResult(accepted=True, score=0.9),
        "logit": 2.0,
        "evidence": np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8),
    }
    return Prediction(**facts | changes)


NORMAL: dict[str, Any] = {"label": "NORMAL", "positive": False, "probability": 0.01234}


def answered(*, warnings: tuple[str, ...] = (), **changes: Any) -> Assessment:
    return assessed(TINY, prediction(**changes), warnings=warnings)


def other_answered(*, warnings: tuple[str, ...] = (), **changes: Any) -> Assessment:
    dry = {"label": "DRY", "positive": False, "probability": 0.25, "operating_point": "screening"}
    return assessed(OTHER, prediction(**dry | changes), warnings=warnings)


def bytes_of(ds: Dataset) -> bytes:
    with BytesIO() as buffer:
        ds.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def report_of(*assessments: Assessment, ds: Dataset | None = None) -> bytes:
    return bytes_of(make_report(ds or source(), assessments))


def report(ds: Dataset | None = None, **changes: Any) -> bytes:
    return report_of(answered(**changes), ds=ds)


def groups(data: bytes) -> list[Any]:
    """The measurement groups, as highdicom reads them."""
    return list(srread(BytesIO(data)).content.get_image_measurement_groups())


def group(data: bytes) -> Any:
    """The one measurement group."""
    (group,) = groups(data)
    return group


def texts_of(items: Any, name: Code) -> list[str]:
    return [item.TextValue for item in items if item.name == name]


def texts(data: bytes, name: Code) -> list[str]:
    return texts_of(group(data)[0].ContentSequence, name)


def leaves(ds: Dataset, *path: Any) -> list[Any]:
    """All that a data set says, in order, and where."""
    found: list[Any] = []
    for element in ds:
        here = (*path, element.keyword)
        if element.VR == "SQ":
            found.append((here, len(element.value)))
            for number, item in enumerate(element.value):
                found.extend(leaves(item, *here, number))
        else:
            found.append((here, element.VR, element.value))
    return found


@pytest.fixture(scope="module")
def dciodvfy() -> str:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy of Debian's dicom3tools")
    return program


@pytest.fixture(scope="module")
def dsrdump() -> str:
    program = shutil.which("dsrdump")
    if program is None:
        pytest.skip("needs dsrdump of Debian's dcmtk")
    return program


@pytest.mark.parametrize(
    ("changes", "probability", "value"),
    [({}, 0.97123, codes.SCT.Present), (NORMAL, 0.01234, codes.SCT.Absent)],
)
@pytest.mark.parametrize("yes", [True, False])
def test_the_report_says_what_was_predicted(
    changes: dict[str, Any], probability: float, value: Code, yes: bool
) -> None:
    check = InputCheckResult(accepted=yes, score=0.25)
    read = group(report(uncertain=yes, input_check=check, **changes))
    numbers = {
        measurement.name: (measurement.value, measurement.unit)
        for measurement in read.get_measurements()
    }
    assert numbers == {
        PROBABILITY: (probability, codes.UCUM.NoUnits),
        THRESHOLD: (0.5, codes.UCUM.NoUnits),
        INPUT_CHECK_SCORE: (0.25, codes.UCUM.NoUnits),
    }
    answer = codes.SCT.Yes if yes else codes.SCT.No
    evaluations = read.get_qualitative_evaluations()
    assert {evaluation.name: evaluation.value for evaluation in evaluations} == {
        PNEUMONIA: value,
        UNCERTAIN: answer,
        INPUT_CHECK_ACCEPTED: answer,
    }


def test_the_probability_is_said_to_be_of_the_finding() -> None:
    (probability,) = group(report()).get_measurements(PROBABILITY)
    (modifier,) = probability[0].ContentSequence
    assert (modifier.name, modifier.value) == (codes.DCM.Finding, PNEUMONIA)


def test_the_words_name_the_operating_point_and_every_warning_and_deny_diagnostic_use() -> None:
    data = report(operating_point="rule_in", warnings=("age – not known", "specificity ≥ 0.9"))
    assert texts(data, codes.DCM.CADOperatingPointDescription) == ["rule_in"]
    said, *warned = texts(data, codes.DCM.Comment)
    assert said == (
        "NOT FOR DIAGNOSTIC USE. PNEUMONIA: probability 0.971, at or above threshold 0.500 "
        "(rule_in)."
    )
    assert warned == ["age - not known", "specificity >= 0.9"]
    assert "not for diagnostic use" in dcmread(BytesIO(data)).SeriesDescription


@pytest.mark.parametrize(
    ("overlaid", "words"),
    [
        (False, "no heatmap is given: this model's is not validated"),
        (True, "the heatmap is not validated: nothing shows that it points at the finding"),
    ],
)
def test_of_a_heatmap_that_is_not_validated_the_words_say_so(overlaid: bool, words: str) -> None:
    of_two = [other_answered(), assessed(UNVALIDATED, prediction(), warnings=("odd",))]
    data = bytes_of(make_report(source(), of_two, unvalidated_heatmaps=overlaid))
    assert [texts_of(g[0].ContentSequence, codes.DCM.Comment)[1:] for g in groups(data)] == [
        [],
        ["odd", words],
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        NORMAL | {"probability": 1 / 3, "threshold": 0.0, "uncertain": True},
        {"input_check": InputCheckResult(accepted=False, score=1.0), "warnings": ("≥", "≥", "odd")},
        {"operating_point": "«comment 0»", "warnings": ("«warning 0»", "«operating point 0»")},
    ],
    ids=["plain", "normal", "warnings", "texts like places"],
)
@pytest.mark.parametrize("modality", ["CR", "DX", None])
@pytest.mark.parametrize(
    "others",
    [
        [],
        [other_answered()],
        [other_answered(warnings=("odd",))] * 10,
        [assessed(OTHER, error=ADULT)],
    ],
    ids=["alone", "with another", "with many others", "without another"],
)
def test_a_report_is_what_highdicom_builds(
    changes: dict[str, Any], modality: str | None, others: list[Assessment]
) -> None:
    ds = source(Modality=modality, SOPInstanceUID="0.2")
    assessments = [answered(**changes), *others]
    told = told_of(source_identity(ds), assessments)
    predictors = [assessment.assessor.predictor for assessment in assessments]
    algorithms = [algorithm_of(predictor) for predictor in predictors][: len(told.groups)]
    built = content_of(told, author_of(predictors), algorithms, modality or "")
    made = dcmread(BytesIO(report_of(*assessments, ds=ds)))
    there = {element.keyword for element in built}
    assert "ContentSequence" in there
    assert [leaf for leaf in leaves(made) if leaf[0][0] in there] == leaves(built)


@pytest.mark.parametrize("others", [[], [other_answered()], [assessed(OTHER, error=ADULT)]])
@pytest.mark.parametrize("warned", [(), ("a warning",)])
def test_no_place_of_the_form_is_left_empty(
    others: list[Assessment], warned: tuple[str, ...]
) -> None:
    empty = places_of(nothing_told(2))
    assert len(set(empty)) == len(empty)
    data = report_of(answered(warnings=warned), *others)
    assert not [place for place in empty if place in data]


@pytest.mark.parametrize("attributes", SOURCES.values(), ids=SOURCES)
def test_the_content_is_written_as_it_was_encoded_and_can_be_read(
    attributes: dict[str, Any],
) -> None:
    made = make_report(source(**attributes), [answered()])
    encoded = made.get_item("ContentSequence").value
    data = bytes_of(made)
    assert encoded in data
    read = dcmread(BytesIO(data))
    assert [leaves(item) for item in made.ContentSequence] == [
        leaves(item) for item in read.ContentSequence
    ]


def test_a_wrong_uid_of_the_source_is_never_warned_of_nor_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ds = source(SOPInstanceUID="1.02", StudyInstanceUID="1.03", SeriesInstanceUID="1.04.")
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        report(ds)
    assert not caplog.records


def test_one_report_says_nothing_of_the_last() -> None:
    first = report()
    report(source(SOPInstanceUID="1.2.3", Modality="DX"), **NORMAL)
    report_of(other_answered(), answered())
    assert report() == first


def test_the_algorithm_and_the_device_are_the_bundle() -> None:
    data = report()
    assert texts(data, codes.DCM.AlgorithmName) == ["tiny"]
    assert texts(data, codes.DCM.AlgorithmParameters) == [f"bundle_sha256={BUNDLE}"]
    (observer,) = srread(BytesIO(data)).content.get_observer_contexts(codes.DCM.Device)
    device = observer.observer_identifying_attributes
    assert (device.name, device.serial_number) == ("tiny", BUNDLE)


def test_every_reference_is_to_the_source() -> None:
    ds = source()
    read = dcmread(BytesIO(report(ds)))
    referred = [item.value for item in read.iterall() if item.keyword == "ReferencedSOPInstanceUID"]
    assert referred == [ds.SOPInstanceUID] * 3  # evidence, image library, measurement group
    (study,) = read.CurrentRequestedProcedureEvidenceSequence
    assert study.StudyInstanceUID == ds.StudyInstanceUID == read.StudyInstanceUID
    assert study.ReferencedSeriesSequence[0].SeriesInstanceUID == ds.SeriesInstanceUID
    (image,) = group(report(ds)).source_images
    assert image.referenced_sop_class_uid == ds.SOPClassUID


def test_the_report_is_complete_unverified_and_preliminary() -> None:
    read = dcmread(BytesIO(report()))
    flags = (read.CompletionFlag, read.VerificationFlag, read.PreliminaryFlag)
    assert flags == ("COMPLETE", "UNVERIFIED", "PRELIMINARY")


def test_private_codes_are_of_a_scheme_that_is_identified() -> None:
    read = dcmread(BytesIO(report()))
    schemes = {item.value for item in read.iterall() if item.keyword == "CodingSchemeDesignator"}
    assert schemes == {"DCM", "SCT", "UCUM", "RFC5646", SCHEME}
    (identified,) = read.CodingSchemeIdentificationSequence
    assert identified.CodingSchemeDesignator == SCHEME


def test_a_source_without_an_identity_has_no_report() -> None:
    with pytest.raises(DamagedFileError):
        report(source(StudyInstanceUID=None))


def test_each_bundle_that_answers_has_a_group_of_its_own() -> None:
    data = report_of(answered(warnings=("of one",)), other_answered(warnings=("of two",)))
    read = groups(data)
    evaluations = [{of.name: of.value for of in one.get_qualitative_evaluations()} for one in read]
    assert evaluations[0][PNEUMONIA] == codes.SCT.Present
    assert evaluations[1][EFFUSION] == codes.SCT.Absent
    assert EFFUSION not in evaluations[0]
    for one, finding, value in zip(read, (PNEUMONIA, EFFUSION), (0.97123, 0.25), strict=True):
        (probability,) = one.get_measurements(PROBABILITY)
        assert probability.value == value
        assert probability[0].ContentSequence[0].value == finding
    items = [one[0].ContentSequence for one in read]
    for name, expected in {
        codes.DCM.AlgorithmName: ["tiny", "other"],
        codes.DCM.AlgorithmParameters: [f"bundle_sha256={b}" for b in (BUNDLE, OTHER_BUNDLE)],
        codes.DCM.CADOperatingPointDescription: ["balanced", "screening"],
        codes.DCM.TrackingIdentifier: [
            "Pneumonia on the whole radiograph",
            "Pleural effusion on the whole radiograph",
        ],
    }.items():
        assert [texts_of(of, name) for of in items] == [[text] for text in expected]
    comments = [texts_of(of, codes.DCM.Comment) for of in items]
    assert [(said.split(":")[0], warned) for said, warned in comments] == [
        ("NOT FOR DIAGNOSTIC USE. PNEUMONIA", "of one"),
        ("NOT FOR DIAGNOSTIC USE. DRY", "of two"),
    ]
    assert len({one.tracking_uid for one in read}) == 2


def test_a_group_is_the_same_whoever_stands_beside_it() -> None:
    alone = groups(report())[0]
    beside = groups(report_of(other_answered(), answered()))[1]
    assert leaves(alone[0]) == leaves(beside[0])


def test_a_bundle_that_refuses_is_named_with_its_reason_in_its_place() -> None:
    lateral = WrongViewError("the view (ViewPosition) is LATERAL, not AP or PA")
    for assessments, words in {
        (answered(), assessed(OTHER, error=ADULT)): (
            f"Pleural effusion is not assessed by other (bundle_sha256={OTHER_BUNDLE}): "
            f"outside_population, {ADULT}"
        ),
        (assessed(TINY, error=lateral), other_answered()): (
            f"Pneumonia is not assessed by tiny (bundle_sha256={BUNDLE}): wrong_view, {lateral}"
        ),
    }.items():
        data = report_of(*assessments)
        assert len(groups(data)) == 1
        root = dcmread(BytesIO(data)).ContentSequence
        kinds = [(item.RelationshipType, item.ValueType) for item in root[2:]]
        assert kinds[-2:] == [("CONTAINS", "CONTAINER"), ("CONTAINS", "TEXT")]
        comments = root[-1:]
        assert [item.TextValue for item in comments] == [words]
        assert comments[0].ConceptNameCodeSequence[0].CodeMeaning == "Comment"


def test_several_bundles_are_one_author_that_is_not_any_of_them() -> None:
    reports = {
        name: dcmread(BytesIO(report_of(*assessments)))
        for name, assessments in {
            "one": [answered()],
            "other": [other_answered()],
            "both": [answered(), other_answered()],
            "both, one refusing": [answered(), assessed(OTHER, error=ADULT)],
        }.items()
    }
    uids = {name: read.SOPInstanceUID for name, read in reports.items()}
    assert uids["one"] == derived_uid("report", CHEST["SOPInstanceUID"], BUNDLE)
    assert len({uids["one"], uids["other"], uids["both"]}) == 3
    assert uids["both"] == uids["both, one refusing"]
    assert reports["both"].ManufacturerModelName == "tiny + other"
    serial = hashlib.sha256(f"{BUNDLE}\n{OTHER_BUNDLE}".encode()).hexdigest()
    assert reports["both"].DeviceSerialNumber == serial
    assert reports["one"].DeviceSerialNumber == BUNDLE


def test_words_of_a_manifest_are_written_in_characters_that_every_source_has() -> None:
    finding = OTHER_FINDING | {"code": {"value": "1", "scheme": "99X", "meaning": "Ödem ≥ II"}}
    local = tiny_predictor(OTHER_BUNDLE, finding=finding)
    read = groups(report_of(assessed(local, prediction())))[0]
    assert read.get_qualitative_evaluations()[0].name.meaning == "?dem >= II"


SEVERAL = {
    "one": [answered(warnings=("a warning",))],
    "not validated": [assessed(UNVALIDATED, prediction())],
    "two": [answered(warnings=("a warning",)), other_answered()],
    "one of two": [assessed(TINY, error=ADULT), other_answered()],
}


@pytest.mark.parametrize("assessments", SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("attributes", SOURCES.values(), ids=SOURCES)
def test_dciodvfy_finds_no_error(
    dciodvfy: str, tmp_path: Path, attributes: dict[str, Any], assessments: list[Assessment]
) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(report_of(*assessments, ds=source(**attributes)))
    ran = subprocess.run([dciodvfy, path], capture_output=True, check=False)
    said = (ran.stdout + ran.stderr).decode("latin-1")
    assert "Comprehensive3DSR" in said
    assert "Error" not in said


@pytest.mark.parametrize(
    ("assessments", "words"),
    [
        ([answered()], ["PNEUMONIA: probability 0.971"]),
        (
            [answered(), other_answered()],
            ["PNEUMONIA: probability 0.971", "DRY: probability 0.250", "Pleural effusion"],
        ),
        (
            [answered(), assessed(OTHER, error=ADULT)],
            ["PNEUMONIA: probability 0.971", "Pleural effusion is not assessed by other"],
        ),
    ],
    ids=["one", "two", "one of two"],
)
@pytest.mark.parametrize("attributes", SOURCES.values(), ids=SOURCES)
def test_dsrdump_reads_every_report(
    dsrdump: str,
    tmp_path: Path,
    attributes: dict[str, Any],
    assessments: list[Assessment],
    words: list[str],
) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(report_of(*assessments, ds=source(**attributes)))
    ran = subprocess.run([dsrdump, "+Pl", path], capture_output=True, check=False)
    assert ran.returncode == 0
    # It says of most character sets that it cannot check them.
    complaints = [
        line
        for line in ran.stderr.decode("latin-1").splitlines()
        if "Specific Character Set" not in line and "SpecificCharacterSet" not in line
    ]
    assert not complaints
    for said in words:
        assert said in ran.stdout.decode("latin-1")


def test_the_same_report_is_made_by_another_process_later_and_elsewhere() -> None:
    script = (
        "import hashlib, sys; sys.path.insert(0, 'tests'); sys.path.insert(0, 'tests/pacs')\n"
        "from test_pacs_report import report\n"
        "print(hashlib.sha256(report()).hexdigest())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati"},
    )
    assert ran.stdout.strip() == hashlib.sha256(report()).hexdigest()


def test_a_source_that_was_read_before_gives_the_same_report() -> None:
    used = source()
    list(used.iterall())
    assert report(used) == report(source()) == report(data_set())
