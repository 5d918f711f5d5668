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

from chestxray.errors import DamagedFileError
from chestxray.inference import InputCheckResult, Prediction
from chestxray.pacs.identity import source_identity
from chestxray.pacs.report import (
    INPUT_CHECK_ACCEPTED,
    INPUT_CHECK_SCORE,
    NOTHING_SAID,
    PNEUMONIA,
    PROBABILITY,
    SCHEME,
    THRESHOLD,
    UNCERTAIN,
    content_of,
    make_report,
    places_of,
    said_of,
)
from factories.bundles import tiny_manifest, tiny_model
from factories.dicom_files import CHEST, DX, data_set, dicom

MANIFEST = tiny_manifest(tiny_model())
BUNDLE = "a" * 64

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
        "probability": 0.97123,
        "threshold": 0.5,
        "operating_point": "balanced",
        "uncertain": False,
        "inverted": False,
        "input_check": InputCheckResult(accepted=True, score=0.9),
        "logit": 2.0,
        "evidence": np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8),
        "warnings": (),
    }
    return Prediction(**facts | changes)


def report(ds: Dataset | None = None, **changes: Any) -> bytes:
    made = make_report(ds or source(), prediction(**changes), MANIFEST, BUNDLE)
    with BytesIO() as buffer:
        made.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def group(data: bytes) -> Any:
    """The one measurement group, as highdicom reads it."""
    (group,) = srread(BytesIO(data)).content.get_image_measurement_groups()
    return group


def texts(data: bytes, name: Code) -> list[str]:
    items = group(data)[0].ContentSequence
    return [item.TextValue for item in items if item.name == name]


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
    ("label", "probability", "value"),
    [("PNEUMONIA", 0.97123, codes.SCT.Present), ("NORMAL", 0.01234, codes.SCT.Absent)],
)
@pytest.mark.parametrize("yes", [True, False])
def test_the_report_says_what_was_predicted(
    label: str, probability: float, value: Code, yes: bool
) -> None:
    read = group(
        report(
            label=label,
            probability=probability,
            uncertain=yes,
            input_check=InputCheckResult(accepted=yes, score=0.25),
        )
    )
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


def test_the_probability_is_said_to_be_of_pneumonia() -> None:
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
    "changes",
    [
        {},
        {"label": "NORMAL", "probability": 1 / 3, "threshold": 0.0, "uncertain": True},
        {"input_check": InputCheckResult(accepted=False, score=1.0), "warnings": ("≥", "≥", "odd")},
        {"operating_point": "«comment»", "warnings": ("«warning»", "«operating point»")},
    ],
    ids=["plain", "normal", "warnings", "texts like places"],
)
@pytest.mark.parametrize("modality", ["CR", "DX", None])
def test_a_report_is_what_highdicom_builds(changes: dict[str, Any], modality: str | None) -> None:
    ds = source(Modality=modality, SOPInstanceUID="0.2")
    said = said_of(source_identity(ds), prediction(**changes), BUNDLE)
    built = content_of(said, "tiny", BUNDLE, modality or "")
    made = dcmread(BytesIO(report(ds, **changes)))
    there = {element.keyword for element in built}
    assert "ContentSequence" in there
    assert [leaf for leaf in leaves(made) if leaf[0][0] in there] == leaves(built)


def test_no_place_of_the_form_is_left_empty() -> None:
    empty = places_of(NOTHING_SAID)
    assert len(set(empty)) == len(empty)
    for warned in ((), ("a warning",)):
        data = report(warnings=warned)
        assert not [place for place in empty if place in data]


@pytest.mark.parametrize("attributes", SOURCES.values(), ids=SOURCES)
def test_the_content_is_written_as_it_was_encoded_and_can_be_read(
    attributes: dict[str, Any],
) -> None:
    made = make_report(source(**attributes), prediction(), MANIFEST, BUNDLE)
    encoded = made.get_item("ContentSequence").value
    with BytesIO() as buffer:
        made.save_as(buffer, enforce_file_format=True)
        assert encoded in buffer.getvalue()
        read = dcmread(BytesIO(buffer.getvalue()))
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
    report(source(SOPInstanceUID="1.2.3", Modality="DX"), label="NORMAL", probability=0.1)
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


@pytest.mark.parametrize("attributes", SOURCES.values(), ids=SOURCES)
def test_dciodvfy_finds_no_error(dciodvfy: str, tmp_path: Path, attributes: dict[str, Any]) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(report(source(**attributes), warnings=("a warning",)))
    ran = subprocess.run([dciodvfy, path], capture_output=True, check=False)
    said = (ran.stdout + ran.stderr).decode("latin-1")
    assert "Comprehensive3DSR" in said
    assert "Error" not in said


@pytest.mark.parametrize("attributes", SOURCES.values(), ids=SOURCES)
def test_dsrdump_reads_every_report(
    dsrdump: str, tmp_path: Path, attributes: dict[str, Any]
) -> None:
    path = tmp_path / "report.dcm"
    path.write_bytes(report(source(**attributes)))
    ran = subprocess.run([dsrdump, "+Pl", path], capture_output=True, check=False)
    assert ran.returncode == 0
    # It says of most character sets that it cannot check them.
    complaints = [
        line
        for line in ran.stderr.decode("latin-1").splitlines()
        if "Specific Character Set" not in line and "SpecificCharacterSet" not in line
    ]
    assert not complaints
    assert "PNEUMONIA: probability 0.971" in ran.stdout.decode("latin-1")


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
