"""Real files of ../shared/data/dicom: chests are read upright and air-dark, others refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chestxray.assessment import Choices, Registry, assess, read_bundles
from chestxray.imaging import read_file
from chestxray.inference import Predictor
from factories.bundles import write_tiny_bundle

CHESTS = ("966_fixed", "RG1_J2KI", "RG1_JLSN", "chest_jpeg_baseline",
          "chest_jpeg_baseline_monochrome1", "gdcm-CR-MONO1-10-chest")  # fmt: skip
OTHERS = {
    "CT_small": "wrong_modality",
    "OBXXXX1A_2frame": "wrong_modality",
    "SC_rgb": "colour",
    "RG2_JLSL": "wrong_body_part",
}


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(threads=2)


def test_all_files_are_known(shared_data: Path) -> None:
    found = {file.stem for file in (shared_data / "dicom").glob("*.dcm")}
    assert found == {*CHESTS, *OTHERS}


@pytest.mark.parametrize("name", CHESTS)
def test_a_chest_is_read_upright_and_air_dark(
    name: str, predictor: Predictor, shared_data: Path
) -> None:
    radiograph = read_file(shared_data / "dicom" / f"{name}.dcm")
    (prediction,) = predictor.predict([radiograph])
    assert prediction.input_check.accepted
    # One file is a copy of which only the tag was changed, so what it says is wrong: noticed.
    assert prediction.inverted is (name == "chest_jpeg_baseline_monochrome1")
    pixels = 1 - radiograph.pixels if prediction.inverted else radiograph.pixels
    height, width = pixels.shape
    beside_the_neck = np.r_[pixels[: height // 12, : width // 12].ravel(),
                            pixels[: height // 12, -width // 12 :].ravel()]  # fmt: skip
    mediastinum = pixels[height // 3 : 2 * height // 3, 9 * width // 20 : 11 * width // 20]
    below_the_diaphragm = pixels[-height // 6 :, width // 4 : 3 * width // 4]
    lungs = pixels[height // 4 : height // 2, width // 5 : 2 * width // 5]
    assert np.median(beside_the_neck) < np.median(mediastinum)
    assert np.median(lungs) < np.median(mediastinum)
    assert np.median(lungs) < np.median(below_the_diaphragm)


def test_monochrome_1_and_2_twins_get_the_same_logit(
    predictor: Predictor, shared_data: Path
) -> None:
    twins = ("chest_jpeg_baseline", "chest_jpeg_baseline_monochrome1")
    one, two = predictor.predict([read_file(shared_data / "dicom" / f"{n}.dcm") for n in twins])
    assert one.logit == pytest.approx(two.logit, abs=0.05)


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_chest_is_refused_by_its_own_code(
    name: str, predictor: Predictor, shared_data: Path
) -> None:
    data = (shared_data / "dicom" / f"{name}.dcm").read_bytes()
    any_age = Choices(population="warn")
    (assessment,) = assess(data, [Registry({"shipped": predictor}).assessor(choices=any_age)])
    assert (assessment.outcome, assessment.error.code) == ("refused", OTHERS[name])


ADULTS = ("RG1_J2KI", "RG1_JLSN", "chest_jpeg_baseline", "chest_jpeg_baseline_monochrome1")


@pytest.mark.parametrize("name", ADULTS)
def test_adults_are_refused_by_who_knows_children_or_answered_with_a_warning(
    name: str, tmp_path: Path, shared_data: Path
) -> None:
    data = (shared_data / "dicom" / f"{name}.dcm").read_bytes()
    registry = Registry.of(read_bundles([("tiny", write_tiny_bundle(tmp_path))]))
    refusing = Choices(input_check="warn")
    (refused,) = assess(data, [registry.assessor(choices=refusing)])
    (warned,) = assess(data, [registry.assessor(choices=replace(refusing, population="warn"))])
    assert refused.error.code == "outside_population"
    assert warned.outcome == "answered"
    assert str(refused.error) in warned.warnings
