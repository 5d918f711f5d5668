"""The overlay is a valid picture of what was judged, with words that can be read beside it."""

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
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset

from chestxray.errors import DamagedFileError
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import InputCheckResult, Prediction, Predictor, render_heatmap
from chestxray.pacs.overlay import MAX_SIDE_PX, MIN_SIDE_PX, TEXT_SIZE, draw_overlay, make_overlay
from factories.bundles import OTHER_FINDING
from factories.dicom_files import CHEST, DX, dicom
from factories.pacs import SEEN, assessed, tiny_predictor

TINY = tiny_predictor("a" * 64, validated=True)
UNVALIDATED = tiny_predictor("a" * 64)
OTHER = tiny_predictor("b" * 64, seed=1, validated=True, finding=OTHER_FINDING)

FEW: dict[str, Any] = {
    keyword: None
    for keyword in CHEST
    if keyword not in {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID"}
}

SOURCES: dict[str, dict[str, Any]] = {
    "cr": {},
    "dx": {"SOPClassUID": DX, "Modality": "DX"},
    "few attributes": FEW,
    "wrong attributes": {
        "PatientAge": "62",
        "PatientBirthDate": "4f2a19zz",
        "PatientSex": "female",
        "AcquisitionDate": "20261399",
        "StudyTime": "25:61",
        "StudyID": "S" * 17,
        "SOPInstanceUID": ["1.2.3", "1.2.4"],
        "BurnedInAnnotation": "maybe",
        "PatientOrientation": "L",
        "LossyImageCompression": "yes",
    },
    "lossy": {"LossyImageCompression": "01", "BurnedInAnnotation": "YES"},
    "cyrillic": {"SpecificCharacterSet": "ISO_IR 144", "PatientName": "Люкceмбypг"},
    "chinese": {"SpecificCharacterSet": "GB18030", "PatientName": "Wang^XiaoDong=王^小东"},
}


def source(**attributes: Any) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dcmread(BytesIO(dicom(**attributes)))


def prediction(evidence: Any = None, **changes: Any) -> Prediction:
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
        "evidence": np.zeros((8, 8), np.float32) if evidence is None else evidence,
    }
    return Prediction(**facts | changes)


def overlay(ds: Dataset | None = None, predictor: Predictor = TINY) -> bytes:
    made = make_overlay(ds or source(), assessed(predictor, prediction()))
    with BytesIO() as buffer:
        made.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def drawn(
    pixels: Any, evidence: Any = None, *, predictor: Predictor = TINY, **changes: Any
) -> np.ndarray:
    picture = draw_overlay(assessed(predictor, prediction(evidence, **changes), pixels=pixels))
    return np.asarray(picture).astype(int)


def middle(picture: np.ndarray) -> np.ndarray:
    """What is left of the radiograph's columns and rows when a fifth goes at each side."""
    height, width = picture.shape[:2]
    return picture[height // 5 : -height // 5, width // 5 : -width // 5]


def line_px(picture: np.ndarray) -> int:
    return round(1.4 * max(picture.shape) / TEXT_SIZE)


def words_in(bar: np.ndarray) -> np.ndarray:
    """Where letters are in a bar (H, W), without its dark ends."""
    letters = bar[..., 0] > 128
    return letters[:, : np.nonzero(letters)[1].max() + 1]


@pytest.fixture(scope="module")
def dciodvfy() -> str:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("needs dciodvfy of Debian's dicom3tools")
    return program


@pytest.mark.parametrize(
    ("height_px", "width_px"),
    [
        (2000, 2000),
        (2500, 2000),
        (1500, 3000),
        (700, 600),
        (80, 64),
        (32, 32),
        (2000, 60),
        (60, 2000),
    ],
)
def test_every_size_is_brought_to_one_that_can_be_read_and_stored(
    height_px: int, width_px: int
) -> None:
    picture = drawn(np.full((height_px, width_px), 0.5))
    assert MIN_SIDE_PX <= max(picture.shape) <= MAX_SIDE_PX
    words = picture[: line_px(picture), :, 0] > 128  # of NOT FOR DIAGNOSTIC USE
    assert np.ptp(np.nonzero(words)[0]) >= 9  # the height of a capital letter
    assert not words[:, [0, -1]].any()


def test_the_radiograph_keeps_its_shape() -> None:
    for height_px, width_px in ((800, 600), (600, 800), (2400, 2000)):
        picture = drawn(np.ones((height_px, width_px)))
        bright = (picture == 255).all(axis=2)
        rows = (bright.mean(axis=1) > 0.5).sum()
        columns = (bright[bright.shape[0] // 2]).sum()
        assert rows / columns == pytest.approx(height_px / width_px, rel=0.01)


def test_nothing_is_written_on_the_radiograph() -> None:
    flat = middle(drawn(np.full((600, 600), 0.5)))
    assert (flat == 128).all()


def test_what_was_judged_as_a_negative_is_shown_as_one() -> None:
    pixels = np.full((600, 600), 0.25)
    assert (middle(drawn(pixels)) == 64).all()
    assert (middle(drawn(pixels, inverted=True)) == 191).all()


def test_evidence_against_the_finding_is_not_drawn() -> None:
    pixels = synthetic_radiograph(1, 600)
    np.testing.assert_array_equal(drawn(pixels, np.full((8, 8), -5, np.float32)), drawn(pixels))


def test_the_heatmap_looks_as_the_page_shows_it() -> None:
    evidence = np.random.default_rng(1).normal(0.5, 1, (8, 8)).astype(np.float32)
    evidence *= np.float32(TINY.manifest.evidence.scale)
    picture = drawn(np.full((900, 900), 0.5), evidence)
    line = line_px(picture)
    left = (picture.shape[1] - (picture.shape[0] - 5 * line)) // 2
    side = picture.shape[0] - 5 * line
    shown = picture[line : line + side, left : left + side]

    with Image.open(BytesIO(render_heatmap(evidence, TINY.manifest.evidence.scale, side))) as page:
        rgba = np.asarray(page.convert("RGBA")).astype(float)
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 128 * (1 - alpha)
    difference = np.abs(shown - expected)
    assert difference.max() < 16  # two levels of 64 where the evidence is steepest
    assert difference.mean() < 1.5


def test_words_change_with_what_they_say() -> None:
    pixels = np.full((600, 600), 0.5)
    plain = drawn(pixels)
    for change in (
        {"label": "NORMAL"},
        {"probability": 0.96},
        {"threshold": 0.6},
        {"operating_point": "rule_in"},
        {"uncertain": True},
    ):
        changed = drawn(pixels, **change)
        assert changed.shape != plain.shape or (changed != plain).any()


def test_the_words_are_those_of_the_bundles_finding() -> None:
    pixels = np.full((600, 600), 0.5)
    plain = drawn(pixels)
    named_otherwise = tiny_predictor("a" * 64, validated=True, finding=OTHER_FINDING)
    assert (drawn(pixels, predictor=named_otherwise) != plain).any()


def test_the_longest_label_fits() -> None:
    label = "W" * 64
    finding = OTHER_FINDING | {"positive": label}
    predictor = tiny_predictor("a" * 64, finding=finding)
    for height_px, width_px in ((512, 512), (2000, 2000), (2000, 60), (60, 2000)):
        picture = drawn(
            np.full((height_px, width_px), 0.5), predictor=predictor, label=label, uncertain=True
        )
        assert max(picture.shape) <= MAX_SIDE_PX


def test_a_heatmap_that_is_not_validated_is_marked_in_the_bar_above_the_radiograph() -> None:
    pixels = np.full((900, 900), 0.5)
    plain, marked = drawn(pixels), drawn(pixels, predictor=UNVALIDATED)
    line = line_px(marked)
    for number in range(2):
        bar = marked[number * line : (number + 1) * line]
        yellow = (bar[..., 0] > 128) & (bar[..., 2] < 64)
        assert np.ptp(np.nonzero(yellow)[0]) >= 9  # a capital letter, in the caution's colour
        assert not yellow[:, [0, -1]].any()
    first, second = marked[:line], marked[line : 2 * line]
    np.testing.assert_array_equal(words_in(first), words_in(plain[:line]))
    assert not np.array_equal(words_in(first), words_in(second))
    assert (middle(marked) == 128).all()  # and nothing on the radiograph


def test_a_heatmap_that_is_not_validated_is_so_called_in_its_series_and_derivation() -> None:
    marked, plain = (dcmread(BytesIO(overlay(predictor=of))) for of in (UNVALIDATED, TINY))
    assert marked.SeriesDescription == "Unvalidated AI heatmap, Pneumonia - not for diagnostic use"
    assert "The heatmap is not validated" in marked.DerivationDescription
    assert plain.SeriesDescription == "AI heatmap, Pneumonia - not for diagnostic use"
    assert "validated" not in plain.DerivationDescription
    assert (marked.Rows, marked.Columns) <= (MAX_SIDE_PX, MAX_SIDE_PX)


def test_one_overlay_shows_nothing_of_the_last() -> None:
    pixels = synthetic_radiograph(1, 600)
    first = drawn(pixels)
    drawn(synthetic_radiograph(2, 600), label="NORMAL", probability=0.1, inverted=True)
    np.testing.assert_array_equal(drawn(pixels), first)


def test_a_wrong_uid_of_the_source_is_never_warned_of_nor_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ds = source(SOPInstanceUID="1.02", StudyInstanceUID="1.03", SeriesInstanceUID="1.04.")
    caplog.clear()
    with caplog.at_level(logging.DEBUG):
        overlay(ds)
    assert not caplog.records


def test_the_overlay_is_beside_its_source_in_a_series_of_its_own() -> None:
    ds = source()
    read = dcmread(BytesIO(overlay(ds)))
    assert read.StudyInstanceUID == ds.StudyInstanceUID
    assert read.SeriesInstanceUID != ds.SeriesInstanceUID
    assert read.Modality == "OT"
    (image,) = read.SourceImageSequence
    assert image.ReferencedSOPInstanceUID == ds.SOPInstanceUID
    assert read.PatientOrientation == ["L", "F"]
    assert "not for diagnostic use" in read.SeriesDescription
    assert "PixelSpacing" not in read


def test_each_bundle_has_an_overlay_in_a_series_that_names_its_finding() -> None:
    one, other = (dcmread(BytesIO(overlay(predictor=predictor))) for predictor in (TINY, OTHER))
    assert one.StudyInstanceUID == other.StudyInstanceUID
    assert one.SeriesInstanceUID != other.SeriesInstanceUID
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert "Pneumonia" in one.SeriesDescription
    assert "Pleural effusion" in other.SeriesDescription
    assert "Evidence for Pleural effusion" in other.DerivationDescription


def test_the_longest_finding_leaves_room_in_the_series_description() -> None:
    code = {"value": "1", "scheme": "99X", "meaning": "Ö" * 64}
    for validated in (True, False):
        predictor = tiny_predictor(
            "a" * 64, validated=validated, finding=OTHER_FINDING | {"code": code}
        )
        description = dcmread(BytesIO(overlay(predictor=predictor))).SeriesDescription
        assert len(description) <= 64  # PS3.5, 6.2, VR of LO
        assert description.endswith("not for diagnostic use")


def test_its_pixels_are_the_picture() -> None:
    read = dcmread(BytesIO(overlay()))
    picture = draw_overlay(assessed(TINY, prediction(), pixels=SEEN))
    np.testing.assert_array_equal(read.pixel_array, np.asarray(picture))


def test_what_the_source_says_of_its_pixels_is_carried_over() -> None:
    read = dcmread(BytesIO(overlay(source(LossyImageCompression="01", BurnedInAnnotation="YES"))))
    assert (read.LossyImageCompression, read.BurnedInAnnotation) == ("01", "YES")
    silent = dcmread(BytesIO(overlay(source(PatientOrientation=None))))
    assert "LossyImageCompression" not in silent
    assert "BurnedInAnnotation" not in silent
    assert not silent.PatientOrientation


def test_a_source_without_an_identity_has_no_overlay() -> None:
    with pytest.raises(DamagedFileError):
        overlay(source(SOPInstanceUID=None))


@pytest.mark.parametrize("predictor", [TINY, UNVALIDATED], ids=["validated", "not validated"])
@pytest.mark.parametrize("attributes", SOURCES.values(), ids=SOURCES)
def test_dciodvfy_finds_no_error(
    dciodvfy: str, tmp_path: Path, attributes: dict[str, Any], predictor: Predictor
) -> None:
    path = tmp_path / "overlay.dcm"
    path.write_bytes(overlay(source(**attributes), predictor))
    ran = subprocess.run([dciodvfy, path], capture_output=True, check=False)
    said = (ran.stdout + ran.stderr).decode("latin-1")
    assert "SCImage" in said
    assert "Error" not in said


def test_the_same_overlay_is_made_by_another_process_later_and_elsewhere() -> None:
    script = (
        "import hashlib, sys; sys.path.insert(0, 'tests'); sys.path.insert(0, 'tests/pacs')\n"
        "from test_pacs_overlay import overlay\n"
        "print(hashlib.sha256(overlay()).hexdigest())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONHASHSEED": "1", "TZ": "Pacific/Kiritimati"},
    )
    assert ran.stdout.strip() == hashlib.sha256(overlay()).hexdigest()
