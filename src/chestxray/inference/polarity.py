"""Are the grey levels the right way round? The correlation with the mean chest radiograph.

In a chest radiograph the lungs are dark beside a bright mediastinum; where a workstation has stored
the negative (MONOCHROME1 taken for MONOCHROME2), it is the other way round. Averaged to 8 × 8
cells and correlated with the mean training radiograph, upright pictures and negatives lie far
apart on either side of zero, whatever their brightness and contrast.

Does not: judge whether the picture is a chest radiograph (``input_check`` does), and so leaves what
correlates with nothing as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from chestxray.imaging import resize
from chestxray.inference.bundle import Polarity

SIDE_CELLS = 8

INVERTED_BELOW = -0.1
"""The correlation below which a picture is taken for a negative. Clean radiographs of both
hospitals lay above 0.15 and their negatives below -0.15 (docs/experiments.md)."""

MIN_STD = 1e-6


def fit_polarity(pictures: Sequence[NDArray[np.float32]]) -> Polarity:
    """The mean of radiographs, each (H, W) in [0, 1], as a template to tell negatives by."""
    template = _standardised(np.mean([_cells(picture) for picture in pictures], axis=0))
    return Polarity(template=template.round(4).tolist(), inverted_below=INVERTED_BELOW)


def is_inverted(pixels: NDArray[np.float32], polarity: Polarity) -> bool:
    """Whether (H, W) in [0, 1] is the negative of a chest radiograph."""
    return correlation(pixels, polarity) < polarity.inverted_below


def correlation(pixels: NDArray[np.float32], polarity: Polarity) -> float:
    """Pearson's correlation of (H, W) with the template, in [-1, 1]; 0 for an empty picture."""
    return float(np.mean(_cells(pixels) * np.asarray(polarity.template)))


def _cells(pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    return _standardised(resize(pixels, SIDE_CELLS).astype(np.float64))


def _standardised(cells: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = cells - cells.mean()
    standardised: NDArray[np.float64] = centred / max(float(centred.std()), MIN_STD)
    return standardised
