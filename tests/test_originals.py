"""What a user uploads, full size, gets the answer of its 224 px copy: on data/originals."""

from pathlib import Path

import numpy as np
import pytest

from chestxray import imaging
from chestxray.imaging import Limits
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
