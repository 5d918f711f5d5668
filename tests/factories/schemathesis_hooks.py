"""What Schemathesis cannot draw from an OpenAPI document: radiographs that the bundle accepts.

It imports this module where ``SCHEMATHESIS_HOOKS`` names it. By their format, not by their media
type: to an array of files it would give a single file of a media type, and send it as text.
"""

from __future__ import annotations

import schemathesis
from hypothesis import strategies as st

from chestxray.imaging.synthetic import synthetic_radiograph
from factories import images

SIDE_PX = 96

levels = [(synthetic_radiograph(seed, SIDE_PX) * 255).round().astype("uint8") for seed in range(8)]
files = [make(samples) for samples in levels for make in (images.png, images.jpeg)]

schemathesis.openapi.format("binary", st.sampled_from(files))
