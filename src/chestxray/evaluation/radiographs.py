"""How the files of a data set are read to be judged: as they are served, but with none held back.

What the input check or a patient's age would have refused is judged all the same, and counted.

Does not: predict, or judge (``evaluate`` and ``stress`` do).
"""

from __future__ import annotations

from pathlib import Path

from chestxray.assessment import Choices, Policy
from chestxray.assessment.decoding import read_file
from chestxray.imaging import Radiograph
from chestxray.inference import Manifest

CHOICES = Choices(input_check="warn", population="warn")


def read_radiograph(file: Path, manifest: Manifest) -> Radiograph:
    """Decode a file as the bundle of ``manifest`` is served; raises as ``decoding.read_file``."""
    policy = Policy.of(manifest, CHOICES)
    return read_file(file, policy, manifest.preprocessing.shrink_to_px)
