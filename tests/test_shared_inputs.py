"""Files of ../shared/cases/inputs, that hospitals and phones send: answered as they should be."""

from pathlib import Path
from typing import Any

import pytest

from chestxray.assessment import Assessment, Choices, Registry, assess, read_bundles
from chestxray.imaging import Limits
from chestxray.imaging.dicom.acquisition import (
    CHEST_IN_OTHER_WORDS,
    UNKNOWN_BODY_PART,
    UNKNOWN_MODALITY,
)
from chestxray.imaging.dicom.codecs import NO_END_MARKER
from chestxray.imaging.dicom.greyscale import EMPTY_LUT
from chestxray.pacs.config import Route
from chestxray.pacs.judging import Answer, judge
from factories.bundles import POPULATION, write_tiny_bundle


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A tiny bundle that knows all ages."""
    folder = tmp_path_factory.mktemp("bundle")
    write_tiny_bundle(folder, population=POPULATION | {"age_years": [0, 120]})
    return Registry.of(read_bundles([("tiny", folder)]))


def assessed(registry: Registry, file: Path, **choices: Any) -> Assessment:
    """What is decided of a file, whatever the input check of a tiny bundle says of a drawing."""
    chosen = Choices(input_check="warn", **choices)
    (assessment,) = assess(file.read_bytes(), [registry.assessor(choices=chosen)])
    return assessment


WORDS = {
    "06_body_brust": CHEST_IN_OTHER_WORDS,
    "06_body_cxr": CHEST_IN_OTHER_WORDS,
    "06_body_pulmon": CHEST_IN_OTHER_WORDS,
    "06_body_torax_utf8": CHEST_IN_OTHER_WORDS,
    "06_body_unknown": UNKNOWN_BODY_PART,
    "06_modality_dr": None,
    "06_modality_ot": UNKNOWN_MODALITY,
    "12a_body_port_chest": None,
}


@pytest.mark.parametrize("name", WORDS)
def test_tags_in_other_words_are_answered(
    shared_inputs: Path, registry: Registry, name: str
) -> None:
    assessment = assessed(registry, shared_inputs / f"{name}.dcm")
    reference = assessed(registry, shared_inputs / "00_reference.dcm")
    assert assessment.answer[1].logit == reference.answer[1].logit
    assert set(assessment.warnings) - set(reference.warnings) == {WORDS[name]} - {None}


@pytest.mark.parametrize("name", ["07_view_profil", "07_view_seitlich"])
def test_laterals_in_other_languages_are_refused_unless_chosen_otherwise(
    shared_inputs: Path, registry: Registry, name: str
) -> None:
    refused = assessed(registry, shared_inputs / f"{name}.dcm")
    assert refused.error.code == "wrong_view"
    warned = assessed(registry, shared_inputs / f"{name}.dcm", acquisition="warn")
    assert str(refused.error) in warned.warnings


def test_a_portable_chest_is_routed(shared_inputs: Path, registry: Registry) -> None:
    data = (shared_inputs / "12a_body_port_chest.dcm").read_bytes()
    rule = {"destination": "archive", "body_part": ["CHEST"], "input_check": "warn"}
    assert isinstance(judge(data, "X", registry, [Route.model_validate(rule)], Limits()), Answer)


@pytest.mark.parametrize("name", ["08a_camera_preview", "08c_ultra_hdr_other_quotes"])
def test_the_first_picture_of_a_photograph_is_read(
    shared_inputs: Path, registry: Registry, name: str
) -> None:
    assessment = assessed(registry, shared_inputs / f"{name}.jpg")
    reference = assessed(registry, shared_inputs / "00_reference.jpeg")
    assert assessment.answer[1].logit == pytest.approx(reference.answer[1].logit, abs=0.05)
    assert assessment.warnings == reference.warnings


def test_a_jpeg_ls_alone_is_a_format_that_is_not_read(
    shared_inputs: Path, registry: Registry
) -> None:
    error = assessed(registry, shared_inputs / "09f_plain.jls").error
    assert (error.code, "JPEG-LS" in str(error)) == ("unsupported_format", True)


DEPARTURES = {
    "05a_empty_voi_item_and_window": EMPTY_LUT,
    "09a_jpeg_fill_bytes": None,
    "09b_jpeg_no_eoi": NO_END_MARKER,
    "09e_j2k_no_eoc": NO_END_MARKER,
}


@pytest.mark.parametrize("name", DEPARTURES)
def test_small_departures_from_the_standard_are_read(
    shared_inputs: Path, registry: Registry, name: str
) -> None:
    assessment = assessed(registry, shared_inputs / f"{name}.dcm")
    reference = assessed(registry, shared_inputs / "00_reference.dcm")
    assert assessment.answer[1].logit == pytest.approx(reference.answer[1].logit, abs=0.05)
    assert set(assessment.warnings) - set(reference.warnings) == {DEPARTURES[name]} - {None}


def test_a_progressive_frame_is_called_so(shared_inputs: Path, registry: Registry) -> None:
    error = assessed(registry, shared_inputs / "09d_jpeg_progressive.dcm").error
    assert "progressive" in str(error)
