"""DICOM: bytes → data set → radiograph.

``data_set`` reads the elements, in bounds; ``acquisition`` says what they say of the image, and
refuses what is no single grey picture; ``frame`` gets the stored values, decompressed by
``codecs`` (JPEG 2000 once ``jpeg_2000`` has walked it) in processes that ``decoder`` may kill;
``orientation`` turns them upright and ``greyscale`` makes grey levels of them. ``elements`` reads
one element's value.

Does not: hand on anything that says who the patient is; the age alone goes into the radiograph.
"""

from chestxray.imaging.dicom.acquisition import acquisition_of
from chestxray.imaging.dicom.data_set import is_dicom, read_data_set
from chestxray.imaging.dicom.elements import text
from chestxray.imaging.dicom.frame import TRANSFER_SYNTAXES
from chestxray.imaging.dicom.reading import open_data_set

__all__ = [
    "TRANSFER_SYNTAXES",
    "acquisition_of",
    "is_dicom",
    "open_data_set",
    "read_data_set",
    "text",
]
