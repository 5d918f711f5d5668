"""DICOM over HTTP: read as any file, refused by what it says of itself, and kept quiet of."""

import logging
import sys

import httpx
import pytest
from pydicom import uid

from chestxray.inference import Predictor
from chestxray.inference.rendering import NOT_VALIDATED
from factories.dicom_files import CHEST, compressed, dicom, phantom
from factories.hostile import passes_over_every_sample
from factories.requests import AGE_IS_NOT_KNOWN, decoded_png, predict, predict_batch

STORED = phantom(12, 96)

REFUSED = {
    "wrong_modality": {"Modality": "RF"},
    "wrong_body_part": {"BodyPartExamined": "SKULL"},
    "wrong_view": {"ViewPosition": "LL"},
    "multi_frame": {"NumberOfFrames": 30},
    "colour": {"PhotometricInterpretation": "YBR_FULL"},
    "no_pixel_data": {"PixelData": None},
}


def test_a_dicom_file_is_answered_as_a_picture_is(client: httpx.Client) -> None:
    answer = predict(client, dicom(STORED), heatmap=True, preview=True).json()
    assert answer["radiograph"] == {"format": "DICOM", "width_px": 96, "height_px": 96}
    assert answer["warnings"] == [NOT_VALIDATED]
    assert decoded_png(answer["preview"])


def test_monochrome_1_and_2_of_one_radiograph_get_one_answer(client: httpx.Client) -> None:
    bright_is_high = predict(client, dicom(STORED)).json()
    bright_is_low = predict(
        client, dicom(4095 - STORED, PhotometricInterpretation="MONOCHROME1")
    ).json()
    assert bright_is_low["probability"] == pytest.approx(bright_is_high["probability"], abs=1e-4)


@pytest.mark.parametrize("code", REFUSED)
def test_what_a_file_says_of_itself_refuses_it_by_its_code(client: httpx.Client, code: str) -> None:
    problem = predict(client, dicom(STORED, **REFUSED[code]))
    assert problem.status_code == 422
    assert problem.json()["code"] == code
    # Not the input check's refusal: warning instead of refusing changes nothing.
    assert predict(client, dicom(STORED, **REFUSED[code]), input_check="warn").status_code == 422


def test_a_transfer_syntax_that_nothing_decodes_is_415(client: httpx.Client) -> None:
    problem = predict(client, compressed(STORED, "1.2.840.10008.1.2.4.100", frame=b"\0" * 64))
    assert problem.status_code == 415
    assert problem.json()["code"] == "unsupported_transfer_syntax"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are limited on Linux")
def test_a_frame_that_takes_more_than_its_size_needs_is_413_and_counted(
    client: httpx.Client,
) -> None:
    def counted() -> float:
        name = 'chestxray_problems_total{code="too_costly"} '
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    before = counted()
    problem = predict(client, passes_over_every_sample(2000))
    assert problem.status_code == 413
    assert problem.json()["code"] == "too_costly"
    assert counted() == before + 1
    assert predict(client, compressed(STORED, uid.JPEG2000Lossless)).status_code == 200


AGES = {"001Y": True, "005Y": True, "071M": True, "006Y": False, "011M": False, "062Y": False}


@pytest.mark.parametrize(("age", "known"), AGES.items())
def test_a_patient_of_another_age_than_the_model_knows_is_refused(
    client: httpx.Client, predictor: Predictor, age: str, known: bool
) -> None:
    assert predictor.manifest.population.age_years == ((1, 5),)
    response = predict(client, dicom(STORED, PatientAge=age))
    if known:
        assert (response.status_code, response.json()["warnings"]) == (200, [])
    else:
        assert (response.status_code, response.json()["code"]) == (422, "outside_population")
        assert "1 to 5 years" in response.json()["detail"]


@pytest.mark.parametrize(("age", "known"), AGES.items())
def test_with_population_warn_any_patient_is_answered_those_of_another_age_with_a_warning(
    client: httpx.Client, age: str, known: bool
) -> None:
    refusal = predict(client, dicom(STORED, PatientAge=age)).json()
    response = predict(client, dicom(STORED, PatientAge=age), population="warn")
    assert response.status_code == 200
    assert response.json()["warnings"] == ([] if known else [refusal["detail"]])


def test_an_acquisition_that_the_model_does_not_know_is_answered_where_that_is_chosen(
    client: httpx.Client,
) -> None:
    for code in ("wrong_modality", "wrong_body_part", "wrong_view"):
        data = dicom(STORED, **REFUSED[code])
        assert predict(client, data, population="warn").status_code == 422
        refusal = predict(client, data).json()
        answer = predict(client, data, acquisition="warn").json()
        assert answer["warnings"] == [refusal["detail"]]


def test_a_file_without_age_is_answered_and_says_so_once(client: httpx.Client) -> None:
    data = dicom(STORED, PatientAge=None, PatientBirthDate=None)
    for population in ("refuse", "warn"):
        assert predict(client, data, population=population).json()["warnings"] == [AGE_IS_NOT_KNOWN]


def test_one_refused_dicom_file_costs_no_other_its_answer(client: httpx.Client) -> None:
    files = [("a", dicom(STORED)), ("b", dicom(STORED, Modality="XA")), ("c", dicom(STORED))]
    results = predict_batch(client, files).json()["results"]
    assert [("prediction" in result) for result in results] == [True, False, True]
    assert results[1]["error"]["code"] == "wrong_modality"


def test_nothing_of_the_patient_is_answered_or_logged(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    files = [dicom(STORED), dicom(STORED, Modality="MR"), dicom(STORED)[:-100]]
    files.append(dicom(STORED, PatientBirthDate="20XX0101", PatientAge="0Y3"))
    said = "".join(predict(client, data).text for data in files) + client.get("/metrics").text
    out, err = capfd.readouterr()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "StudyDate",
                    "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):  # fmt: skip
        assert CHEST[keyword] not in said + caplog.text + out + err
