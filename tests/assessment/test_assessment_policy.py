"""What a bundle does not know is refused by its code, or is a warning where that is chosen."""

import re
from typing import Any

import numpy as np
import pytest
from pydicom import Dataset, uid

from chestxray.assessment import Assessment, Choices, Registry, assess
from chestxray.assessment.policy import AGES_UNKNOWN, DEFAULT_CHOICES, NOT_A_CHEST
from chestxray.errors import (
    OutsidePopulationError,
    UnknownOperatingPointError,
    WrongBodyPartError,
    WrongModalityError,
    WrongViewError,
)
from chestxray.imaging import Acquisition, open_file
from chestxray.imaging.dicom.acquisition import (
    CHEST_IN_OTHER_WORDS,
    NO_MODALITY,
    UNKNOWN_BODY_PART,
    UNKNOWN_MODALITY,
    UNKNOWN_VIEW,
)
from chestxray.inference import Predictor
from factories import images
from factories.bundles import POPULATION, write_tiny_bundle
from factories.dicom_files import compressed, dicom, phantom

SMALL = phantom(12, 64)
NO_AGE = {"PatientAge": None, "PatientBirthDate": None}
AGE_IS_NOT_KNOWN = (
    "the patient's age is not known: the model is meant only for patients aged 1 to 5 years"
)
OUTSIDE = (
    "the patient is not of an age that the model knows: "
    "the model is meant only for patients aged 1 to 5 years"
)
WARN = Choices(input_check="warn", population="warn", acquisition="warn")


def assessed(registry: Registry, data: bytes, choices: Choices = DEFAULT_CHOICES) -> Assessment:
    (assessment,) = assess(data, [registry.assessor(choices=choices)])
    return assessment


def code(value: str, meaning: str = "somewhere") -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", meaning
    return item


REFUSED = {
    "fluoroscopy": (WrongModalityError, {"Modality": "RF"}),
    "angiography": (WrongModalityError, {"Modality": "XA"}),
    "mammography": (WrongModalityError, {"Modality": "MG"}),
    "CT": (WrongModalityError, {"Modality": "CT"}),
    "knee": (WrongBodyPartError, {"BodyPartExamined": "KNEE"}),
    "hip": (WrongBodyPartError, {"BodyPartExamined": "hip"}),
    "thoracic spine": (WrongBodyPartError, {"BodyPartExamined": "THORACIC SPINE"}),
    "T spine": (WrongBodyPartError, {"BodyPartExamined": "TSPINE"}),
    "thoracolumbar": (WrongBodyPartError, {"BodyPartExamined": "THORACOLUMBAR"}),
    "knee in Spanish": (WrongBodyPartError, {"BodyPartExamined": "RODILLA"}),
    "thoracic spine in German": (WrongBodyPartError, {"BodyPartExamined": "BRUSTWIRBELSAEULE"}),
    "breastbone in German": (WrongBodyPartError, {"BodyPartExamined": "Brustbein seitl."}),
    "abdomen by code": (
        WrongBodyPartError,
        {"BodyPartExamined": None, "AnatomicRegionSequence": [code("818983003")]},
    ),
    "left lateral": (WrongViewError, {"ViewPosition": "LL"}),
    "right lateral": (WrongViewError, {"ViewPosition": "RL"}),
    "lateral": (WrongViewError, {"ViewPosition": "LATERAL"}),
    "lat": (WrongViewError, {"ViewPosition": "L LAT"}),
    "lateral in French": (WrongViewError, {"ViewPosition": "PROFIL"}),
    "lateral in Portuguese": (WrongViewError, {"ViewPosition": "PERFIL ESQ"}),
    "lateral in German": (WrongViewError, {"ViewPosition": "SEITLICH"}),
    "lateral in Italian": (WrongViewError, {"ViewPosition": "LATERALE"}),
    "lateral in Dutch": (WrongViewError, {"ViewPosition": "zijdelings"}),
    "decubitus": (WrongViewError, {"ViewPosition": "LLD"}),
    "oblique": (WrongViewError, {"ViewPosition": "RLO"}),
    "lateral by code": (
        WrongViewError,
        {"ViewPosition": None, "ViewCodeSequence": [code("399173006", "left lateral")]},
    ),
    "seen from the left": (
        WrongViewError,
        {"ViewPosition": None, "PatientOrientation": ["A", "F"]},
    ),
    "seen from the right": (WrongViewError, {"ViewPosition": "", "PatientOrientation": ["P", "F"]}),
    "an adult": (OutsidePopulationError, {"PatientAge": "045Y"}),
    "a newborn": (OutsidePopulationError, {"PatientAge": "003D"}),
    "an adult by dates": (
        OutsidePopulationError,
        {"PatientAge": None, "PatientBirthDate": "19600102", "AcquisitionDate": "20260102"},
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_bundle_does_not_know_is_refused_by_its_code(
    registry: Registry, kind: str
) -> None:
    error, attributes = REFUSED[kind]
    assessment = assessed(registry, dicom(SMALL, **attributes))
    assert assessment.outcome == "refused"
    assert type(assessment.error) is error
    assert (assessment.radiograph, assessment.prediction) == (None, None)
    with pytest.raises(error):
        _ = assessment.answer


@pytest.mark.parametrize("kind", REFUSED)
def test_what_the_bundle_does_not_know_is_answered_with_a_warning_where_that_is_chosen(
    registry: Registry, kind: str
) -> None:
    error, attributes = REFUSED[kind]
    data = dicom(SMALL, **attributes)
    assessment = assessed(registry, data, WARN)
    assert assessment.outcome == "answered"
    refused = assessed(registry, data)
    assert assessment.warnings.count(str(refused.error)) == 1
    chosen = "population" if error is OutsidePopulationError else "acquisition"
    assert assessed(registry, data, Choices(**{chosen: "warn"})).outcome == "answered"
    others = {"input_check", "population", "acquisition"} - {chosen}
    still_refused = assessed(registry, data, Choices(**dict.fromkeys(others, "warn")))
    assert still_refused.error.code == error.code


@pytest.mark.parametrize(
    "attributes",
    [
        {"Modality": "DX"},
        {"Modality": "cr "},
        {"Modality": "DR"},
        {"Modality": "RG"},
        {"BodyPartExamined": "THORAX"},
        {"BodyPartExamined": "PORT CHEST"},
        {"BodyPartExamined": "W033 Thorax p.a."},
        {"BodyPartExamined": "CHESTABDOMEN"},
        {"BodyPartExamined": None, "AnatomicRegionSequence": [code("51185008", "Chest")]},
        {"BodyPartExamined": None},
        {"BodyPartExamined": ""},
        {"ViewPosition": "AP"},
        {"ViewPosition": "PA"},
        {"ViewPosition": None},
        {"ViewPosition": "FRONTAL"},
        {"ViewPosition": None, "ViewCodeSequence": [code("272479007", "postero-anterior")]},
        {"PatientOrientation": None},
        {"PatientOrientation": ["LA", "F"]},
        {"NumberOfFrames": 1},
        {"NumberOfFrames": None},
    ],
    ids=str,
)
def test_what_may_be_a_frontal_chest_radiograph_is_answered_without_a_warning(
    registry: Registry, attributes: dict[str, Any]
) -> None:
    assessment = assessed(registry, dicom(SMALL, **attributes))
    assert (assessment.outcome, assessment.warnings) == ("answered", ())


@pytest.mark.parametrize(
    ("attributes", "warning"),
    [
        ({"Modality": "OT"}, UNKNOWN_MODALITY),
        ({"Modality": "Paula"}, UNKNOWN_MODALITY),
        ({"Modality": None}, NO_MODALITY),
        ({"BodyPartExamined": "BRUST"}, CHEST_IN_OTHER_WORDS),
        ({"BodyPartExamined": "PULMON"}, CHEST_IN_OTHER_WORDS),
        ({"BodyPartExamined": "CXR"}, CHEST_IN_OTHER_WORDS),
        ({"BodyPartExamined": "UNKNOWN"}, UNKNOWN_BODY_PART),
        ({"BodyPartExamined": "ROUTINE FOR DR PAULA"}, UNKNOWN_BODY_PART),
        (
            {"BodyPartExamined": None, "AnatomicRegionSequence": [code("4711")]},
            UNKNOWN_BODY_PART,
        ),
        ({"ViewPosition": "ERECT"}, UNKNOWN_VIEW),
        ({"ViewPosition": "Paula"}, UNKNOWN_VIEW),
        (
            {"ViewPosition": None, "ViewCodeSequence": [code("4711", "Paula")]},
            UNKNOWN_VIEW,
        ),
    ],
    ids=str,
)
def test_words_that_are_not_known_are_no_reason_to_refuse_but_a_warning(
    registry: Registry, attributes: dict[str, Any], warning: str
) -> None:
    assessment = assessed(registry, dicom(SMALL, **attributes))
    assert (assessment.outcome, assessment.warnings) == ("answered", (warning,))


def test_a_body_part_in_other_words_is_the_chest_if_its_code_says_so(registry: Registry) -> None:
    data = dicom(SMALL, BodyPartExamined="Paula", AnatomicRegionSequence=[code("816094009")])
    assert assessed(registry, data).warnings == ()


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"Modality": "MG"}, "the modality (Modality) is MG, not CR or DX"),
        ({"BodyPartExamined": "Knie li."}, "the body part (BodyPartExamined) is KNEE, not CHEST"),
        (
            {"BodyPartExamined": None, "AnatomicRegionSequence": [code("818983003")]},
            "the body part (AnatomicRegionSequence) is ABDOMEN, not CHEST",
        ),
        ({"ViewPosition": "Paula lat."}, "the view (ViewPosition) is LATERAL, not AP or PA"),
        (
            {"ViewPosition": "PA", "ViewCodeSequence": [code("1", "left lateral")]},
            "the view (ViewCodeSequence) is LATERAL, not AP or PA",
        ),
        (
            {"PatientOrientation": ["A", "F"]},
            "the view (PatientOrientation) is LATERAL, not AP or PA",
        ),
    ],
    ids=str,
)
def test_a_refusal_names_the_attribute_and_what_it_was_understood_as(
    registry: Registry, attributes: dict[str, Any], words: str
) -> None:
    assert str(assessed(registry, dicom(SMALL, **attributes)).error) == words


def test_what_is_said_is_refused_before_the_pixels_are_looked_at(registry: Registry) -> None:
    no_picture = dicom(SMALL, Modality="MR", Rows=0, BitsAllocated=77)
    assert assessed(registry, no_picture).error.code == "wrong_modality"
    broken = compressed(SMALL, uid.JPEGLSLossless, frame=b"no frame", ViewPosition="LL")
    assert assessed(registry, broken).error.code == "wrong_view"
    adult = compressed(SMALL, uid.JPEGLSLossless, frame=b"no frame", PatientAge="070Y")
    assert assessed(registry, adult).error.code == "outside_population"


def test_no_refusal_or_warning_tells_who_the_patient_is(registry: Registry) -> None:
    for attributes in (
        {"Modality": "Paula"},
        {"BodyPartExamined": "Paula"},
        {"BodyPartExamined": "Paula's knee"},
        {"ViewPosition": "Paula"},
        {"ViewPosition": "Paula lateral"},
        {"PatientAge": "045Y"},
    ):
        assessment = assessed(registry, dicom(SMALL, **attributes))
        assert assessment.error or assessment.warnings
        told = " ".join([str(assessment.error), *assessment.warnings])
        assert not re.search("(?i)paula|P-1|2023|45", told)


@pytest.mark.parametrize("age", ["001Y", "005Y", "012M", "071M"])
def test_patients_of_an_age_that_the_bundle_knows_are_answered_without_a_warning(
    registry: Registry, age: str
) -> None:
    assessment = assessed(registry, dicom(SMALL, PatientAge=age))
    assert (assessment.outcome, assessment.warnings) == ("answered", ())


@pytest.mark.parametrize("age", ["006Y", "011M", "072M", "099Y"])
def test_patients_of_another_age_are_refused_by_default(registry: Registry, age: str) -> None:
    assessment = assessed(registry, dicom(SMALL, PatientAge=age))
    assert (assessment.error.code, str(assessment.error)) == ("outside_population", OUTSIDE)
    warned = assessed(registry, dicom(SMALL, PatientAge=age), Choices(population="warn"))
    assert (warned.outcome, warned.warnings) == ("answered", (OUTSIDE,))


@pytest.mark.parametrize(
    "data",
    [
        dicom(SMALL, **NO_AGE),
        images.png(images.smooth(64, 64)),
        images.jpeg(images.smooth(64, 64)),
    ],
    ids=["DICOM", "PNG", "JPEG"],
)
def test_a_picture_without_an_age_is_answered_and_says_so_once(
    registry: Registry, data: bytes
) -> None:
    for choices in (Choices(input_check="warn"), WARN):
        assessment = assessed(registry, data, choices)
        assert assessment.outcome == "answered"
        assert [w for w in assessment.warnings if "age" in w.split()] == [AGE_IS_NOT_KNOWN]


def test_a_bundle_that_knows_no_ages_says_so_and_refuses_none(tmp_path) -> None:
    write_tiny_bundle(tmp_path, population=POPULATION | {"age_years": None})
    registry = Registry({"one": Predictor.load(tmp_path)})
    for attributes in ({"PatientAge": "070Y"}, NO_AGE):
        assessment = assessed(registry, dicom(SMALL, **attributes))
        assert (assessment.outcome, assessment.warnings) == ("answered", (AGES_UNKNOWN,))


@pytest.mark.parametrize(
    ("knows", "attributes", "error"),
    [
        ({"views": ["PA"]}, {"ViewPosition": "AP"}, "wrong_view"),
        ({"views": ["LATERAL"]}, {"ViewPosition": "LL"}, None),
        ({"views": ["LATERAL"]}, {"ViewPosition": "PA"}, "wrong_view"),
        ({"modalities": ["DX"]}, {"Modality": "CR"}, "wrong_modality"),
        ({"modalities": ["MG"]}, {"Modality": "MG"}, None),
        ({"modalities": ["DR"]}, {"Modality": "DX"}, None),
        ({"modalities": ["RG"]}, {"Modality": "DX"}, "wrong_modality"),
        ({"body_parts": ["THORAX"]}, {"BodyPartExamined": "CHEST"}, None),
        ({"body_parts": ["HAND"]}, {"BodyPartExamined": "Hand"}, None),
        ({"body_parts": ["HAND"]}, {"BodyPartExamined": "CHEST"}, "wrong_body_part"),
        ({"age_years": [18, 120]}, {"PatientAge": "045Y"}, None),
        ({"age_years": [18, 120]}, {"PatientAge": "003Y"}, "outside_population"),
        ({"age_years": [[1, 5], [18, 90]]}, {"PatientAge": "003Y"}, None),
        ({"age_years": [[1, 5], [18, 90]]}, {"PatientAge": "018Y"}, None),
        ({"age_years": [[1, 5], [18, 90]]}, {"PatientAge": "017Y"}, "outside_population"),
        ({"age_years": [[1, 5], [18, 90]]}, {"PatientAge": "091Y"}, "outside_population"),
    ],
    ids=str,
)
def test_what_is_refused_is_a_fact_of_the_manifest(
    tmp_path, knows: dict[str, Any], attributes: dict[str, Any], error: str | None
) -> None:
    write_tiny_bundle(tmp_path, population=POPULATION | knows)
    registry = Registry({"one": Predictor.load(tmp_path)})
    assessment = assessed(registry, dicom(SMALL, **attributes))
    assert (assessment.error and assessment.error.code) == error


def test_every_way_to_say_a_view_gives_one_term() -> None:
    said = {
        "AP": "AP", "PA": "PA", "ap": "AP", "CHEST PA": "PA", "A.P. ERECT": "AP", "LL": "LATERAL",
        "Lateral": "LATERAL", "RLD": "DECUBITUS", "LPO": "OBLIQUE", "LORDOTIC": "LORDOTIC",
        "PA AND LATERAL": "LATERAL", "ERECT": None, "": None,
    }  # fmt: skip
    found = {words: open_file(dicom(SMALL, ViewPosition=words)).acquisition.view for words in said}
    assert found == said


def test_the_file_says_how_it_was_made_before_it_is_decoded() -> None:
    assert open_file(dicom(SMALL)).acquisition == Acquisition("CR", "CHEST", "PA", 3.0)
    assert open_file(images.png(images.smooth(64, 64))).acquisition == Acquisition()


def test_the_input_check_refuses_with_its_score_or_warns(registry: Registry) -> None:
    noise = images.png(np.random.default_rng(0).integers(0, 256, (80, 80), np.uint8))
    refused = assessed(registry, noise)
    assert refused.error.code == "not_a_chest_radiograph"
    assert refused.error.score == refused.prediction.input_check.score
    warned = assessed(registry, noise, Choices(input_check="warn"))
    assert warned.outcome == "answered"
    assert warned.warnings[-1] == NOT_A_CHEST


def test_an_operating_point_that_the_bundle_lacks_is_nobodys_file(registry: Registry) -> None:
    with pytest.raises(UnknownOperatingPointError):
        registry.assessor(choices=Choices(operating_point="guess"))
