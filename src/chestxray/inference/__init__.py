"""From a radiograph to a calibrated answer, through one bundle and without PyTorch.

Does not: read image files (``imaging``), know of HTTP (``service``), or fit a calibration or an
operating point (``learning``).
"""

from chestxray.inference.bundle import (
    BUNDLED,
    Bundle,
    Finding,
    Manifest,
    Population,
    read_bundle,
    write_bundle,
)
from chestxray.inference.network import NetworkAnswers, OnnxNetwork
from chestxray.inference.predictor import InputCheckResult, Prediction, Predictor
from chestxray.inference.rendering import (
    enlarge,
    render_colour_bar,
    render_heatmap,
    render_preview,
)

__all__ = [
    "BUNDLED",
    "Bundle",
    "Finding",
    "InputCheckResult",
    "Manifest",
    "NetworkAnswers",
    "OnnxNetwork",
    "Population",
    "Prediction",
    "Predictor",
    "enlarge",
    "read_bundle",
    "render_colour_bar",
    "render_heatmap",
    "render_preview",
    "write_bundle",
]
