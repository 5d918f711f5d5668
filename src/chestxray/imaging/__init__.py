"""Bytes → radiograph → input: sniffing, limits, decoding, the only resize and the only normalise.

``reading`` tells the format by its first bytes and finds the decoder. ``jpeg_file`` and
``png_file`` refuse before decoding, ``raster`` decodes both; ``dicom`` does all that for DICOM.
``jpeg_segments`` steps through the JPEG streams of both, ``strips`` through a picture's rows.
``other_formats`` names what is not read, and ``terms`` says what words for how it was made mean.
``network_input`` makes the input, and ``synthetic`` draws a phantom for references and tests.

Does not: know the model, or keep or log anything of an image.
"""

from chestxray.imaging.network_input import normalise, resize, stretch, to_input
from chestxray.imaging.radiograph import Acquisition, Limits, Opened, Radiograph, View
from chestxray.imaging.reading import load, open_file, read, read_file

__all__ = [
    "Acquisition",
    "Limits",
    "Opened",
    "Radiograph",
    "View",
    "load",
    "normalise",
    "open_file",
    "read",
    "read_file",
    "resize",
    "stretch",
    "to_input",
]
