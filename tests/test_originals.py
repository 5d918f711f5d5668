"""What a user uploads, full size, gets the answer of its 224 px copy: on data/originals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chestxray import imaging
from chestxray.imaging import Limits
from chestxray.imaging.dicom.reading import SHRINK_TO_PX
from chestxray.imaging.network_input import shrink
from chestxray.imaging.raster import decode_jpeg
from chestxray.inference import Predictor


@pytest.fixture(scope="module")
def originals(shared_data: Path) -> list[Path]:
    files = sorted((shared_data / "originals").glob("*/*"))
    assert len(files) == 80
    return files


def test_shrinking_while_decoding_moves_no_logit_by_more_than_0_15(originals: list[Path]) -> None:
    predictor = Predictor.load(threads=2)
    shrunk = predictor.predict([imaging.read_file(file) for file in originals])
    full = predictor.predict(
        [decode_jpeg(file.read_bytes(), Limits(), shrink=False) for file in originals]
    )
    moves = np.array([abs(a.logit - b.logit) for a, b in zip(shrunk, full, strict=True)])
    assert moves.max() < 0.15


def test_shrinking_dicom_moves_no_logit_of_an_original_by_more_than_0_1(
    originals: list[Path],
) -> None:
    """As ``imaging.dicom`` shrinks what it has decoded: only the largest are."""
    predictor = Predictor.load(threads=2)
    full = [decode_jpeg(file.read_bytes(), Limits(), shrink=False) for file in originals]
    large = [radiograph for radiograph in full if min(radiograph.pixels.shape) >= 2 * SHRINK_TO_PX]
    assert len(large) == 6
    shrunk = [
        replace(radiograph, pixels=shrink(radiograph.pixels, SHRINK_TO_PX)) for radiograph in large
    ]
    answers = zip(predictor.predict(large), predictor.predict(shrunk), strict=True)
    assert max(abs(one.logit - other.logit) for one, other in answers) < 0.1


def test_originals_get_the_labels_of_their_224_px_copies(
    originals: list[Path], shared_data: Path
) -> None:
    train = shared_data / "chest_xray" / "train"
    copies = [train / file.parent.name / file.name for file in originals]
    predictor = Predictor.load(threads=2)
    full = predictor.predict([imaging.read_file(file) for file in originals])
    small = predictor.predict([imaging.read_file(file) for file in copies])
    moves = [abs(a.logit - b.logit) for a, b in zip(full, small, strict=True)]
    same = np.mean([a.label == b.label for a, b in zip(full, small, strict=True)])
    assert same >= 0.98, f"logits differ by {np.median(moves):.3f} in the median, {max(moves):.3f}"
