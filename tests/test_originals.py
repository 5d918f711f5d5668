"""What a user uploads, full size, gets the answer of its 224 px copy: on data/originals."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chestxray import imaging
from chestxray.assessment import Registry, assess, read_bundles
from chestxray.imaging import resize
from chestxray.imaging.dicom.reading import LOOKED_AT_PX
from chestxray.imaging.network_input import shrink
from chestxray.inference import BUNDLED, Predictor
from chestxray.inference.bundle import Preprocessing
from factories.bundles import as_format_1


@pytest.fixture(scope="module")
def originals(shared_data: Path) -> list[Path]:
    files = sorted((shared_data / "originals").glob("*/*"))
    assert len(files) == 80
    return files


# Of each side of the input: levels of grey by which shrinking changes the inputs of the originals,
# on average and at most. Measured: 0.14 and 0.74, 0.18 and 0.89, 0.05 and 0.67, 0 and 0.
CHANGED_BY = {160: (0.2, 1.1), 224: (0.25, 1.3), 384: (0.1, 1.0), 768: (0.1, 1.0)}


@pytest.mark.parametrize("side_px", CHANGED_BY)
def test_shrinking_leaves_the_input_of_the_originals_alone(
    originals: list[Path], side_px: int
) -> None:
    differences = []
    for file in originals:
        full = imaging.read_file(file).pixels
        shrunk = imaging.read_file(file, shrink_to_px=Preprocessing.enough_px(side_px)).pixels
        # No pixel of the input is made up, unless the file itself has too few.
        assert min(shrunk.shape) >= min(side_px, *full.shape)
        difference = resize(shrunk, side_px) - resize(full, side_px)
        differences.append(np.abs(difference).mean() * 255)
    on_average, at_most = CHANGED_BY[side_px]
    assert np.mean(differences) < on_average
    assert max(differences) < at_most


@pytest.mark.parametrize(
    ("side_px", "shrink_to_px", "levels"), [(160, 320, 0.35), (224, 224, 0.70)]
)
def test_shrinking_further_would_change_the_input_more(
    originals: list[Path], side_px: int, shrink_to_px: int, levels: float
) -> None:
    """What ``Preprocessing.enough_px`` tells of shrinking to less than it asks for."""
    differences = [
        resize(imaging.read_file(file, shrink_to_px=shrink_to_px).pixels, side_px)
        - resize(imaging.read_file(file).pixels, side_px)
        for file in originals
    ]
    assert np.abs(differences).mean() * 255 == pytest.approx(levels, abs=0.02)


def test_originals_are_answered_to_the_bit_alike_by_either_format(
    originals: list[Path], tmp_path: Path
) -> None:
    older = Path(shutil.copytree(BUNDLED, tmp_path / "older"))
    as_format_1(older)
    registry = Registry.of(read_bundles([("newer", BUNDLED), ("older", older)]))
    for file in originals:
        newer, older_too = assess(file.read_bytes(), registry.assessors())
        (_, one), (_, other) = newer.answer, older_too.answer
        assert (one.logit, one.probability, one.label) == (
            other.logit,
            other.probability,
            other.label,
        )
        assert one.evidence.tobytes() == other.evidence.tobytes()


def rounding(predictor: Predictor) -> float:
    """What int8 moves a logit by (99th percentile). What moves a pixel by less than a level of grey
    changes what is rounded up and down, and so the logit by as much: in fp32 the shrunk originals'
    move by 0.04 at most."""
    return float(predictor.manifest.training["parity"]["int8_p99"])


def test_shrinking_while_decoding_moves_no_logit_by_more_than_rounding(
    originals: list[Path],
) -> None:
    predictor = Predictor.load(threads=2)
    shrink_to_px = predictor.manifest.preprocessing.shrink_to_px
    shrunk = predictor.predict(
        [imaging.read_file(file, shrink_to_px=shrink_to_px) for file in originals]
    )
    full = predictor.predict([imaging.read(file.read_bytes()) for file in originals])
    moves = np.array([abs(a.logit - b.logit) for a, b in zip(shrunk, full, strict=True)])
    assert moves.max() < rounding(predictor)
    assert np.percentile(moves, 95) < 0.15


def test_shrinking_dicom_moves_no_logit_of_an_original_by_more_than_rounding(
    originals: list[Path],
) -> None:
    """As ``imaging.dicom`` shrinks what it has decoded: only the largest are."""
    predictor = Predictor.load(threads=2)
    full = [imaging.read(file.read_bytes()) for file in originals]
    large = [radiograph for radiograph in full if min(radiograph.pixels.shape) >= 2 * LOOKED_AT_PX]
    assert len(large) == 6
    shrunk = [
        replace(radiograph, pixels=shrink(radiograph.pixels, LOOKED_AT_PX)) for radiograph in large
    ]
    answers = zip(predictor.predict(large), predictor.predict(shrunk), strict=True)
    assert max(abs(one.logit - other.logit) for one, other in answers) < rounding(predictor)


def test_originals_get_the_labels_of_their_224_px_copies(
    originals: list[Path], shared_data: Path
) -> None:
    train = shared_data / "chest_xray" / "train"
    copies = [train / file.parent.name / file.name for file in originals]
    predictor = Predictor.load(threads=2)
    shrink_to_px = predictor.manifest.preprocessing.shrink_to_px
    full = predictor.predict(
        [imaging.read_file(file, shrink_to_px=shrink_to_px) for file in originals]
    )
    small = predictor.predict([imaging.read_file(file) for file in copies])
    moves = [abs(a.logit - b.logit) for a, b in zip(full, small, strict=True)]
    same = np.mean([a.label == b.label for a, b in zip(full, small, strict=True)])
    assert same >= 0.98, f"logits differ by {np.median(moves):.3f} in the median, {max(moves):.3f}"
