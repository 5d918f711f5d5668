"""Turns a picture upright: rows run to the patient's left, columns to the feet.

Source: PS3.3 C.7.6.1.1.1 (Patient Orientation). Does not: guess where the data set does not say.
"""

from __future__ import annotations

from pydicom import Dataset

from chestxray.imaging.dicom.codecs import Words
from chestxray.imaging.dicom.elements import texts


def upright(ds: Dataset, pixels: Words) -> Words:
    """(H, W), turned and mirrored as the first letters of Patient Orientation ask; maybe a view."""
    directions = "".join(value[0] for value in texts(ds, "PatientOrientation"))
    if directions in ("FL", "FR", "HL", "HR"):
        pixels, directions = pixels.T, directions[::-1]
    if directions in ("LH", "RH"):
        pixels = pixels[::-1]
    if directions in ("RF", "RH"):
        pixels = pixels[:, ::-1]
    return pixels
