"""Reads where the lungs are: masks over the picture, stretched to a square.

A file of masks is an ``.npz`` of ``name``, (N,) file names with or without their suffix, and
``bits``, (N, 6272) uint8: ``np.packbits`` of (224, 224), 1 within the lungs.

Does not: find lungs in a picture.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from chestxray.dataset.remarks import Remarks
from chestxray.dataset.samples import Sample
from chestxray.errors import DatasetError

SIDE_PX = 224

# What NumPy and the libraries under it raise for files that are damaged, or no such archive.
_DAMAGE = (
    *(KeyError, ValueError, TypeError, EOFError, OSError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


def read_lungs(files: Sequence[Path], samples: Sequence[Sample]) -> dict[str, NDArray[np.bool_]]:
    """The masks of those ``samples`` that have one, (224, 224) bool each, by ``Sample.path``.

    Samples of one file name and one subject are the same radiograph, stored at another size maybe,
    and share its mask. Masks of no sample are passed over.

    Raises:
        DatasetError: a file holds no masks or none for any sample, a name has several masks, or a
            mask may be of several subjects.
    """
    named: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        file_name = PurePosixPath(sample.path)
        for name in {file_name.stem, file_name.name}:
            named[name].append(sample)
    masks: dict[str, NDArray[np.bool_]] = {}
    for file in files:
        complaints = Remarks(file)
        n_known = 0
        for name, bits in _read_masks(file):
            meant = named.get(name, [])
            n_known += bool(meant)
            if len({sample.subject for sample in meant}) > 1:
                complaints.add("masks that may be of several subjects", name)
            elif any(sample.path in masks for sample in meant):
                complaints.add("names that have a mask already", name)
            elif meant:
                mask = np.unpackbits(bits).reshape(SIDE_PX, SIDE_PX).astype(bool)
                masks |= {sample.path: mask for sample in meant}
        complaints.raise_any()
        if not n_known:
            raise DatasetError(f"{file} has no mask for any radiograph of the data that is read")
    return masks


def _read_masks(file: Path) -> list[tuple[str, NDArray[np.uint8]]]:
    content = io.BytesIO(file.read_bytes())
    try:
        with np.load(content, allow_pickle=False) as arrays:
            names, bits = arrays["name"], arrays["bits"]
    except _DAMAGE as exc:
        raise DatasetError(f"{file} holds no masks: an .npz of name and bits is wanted") from exc
    expected = (*names.shape, SIDE_PX * SIDE_PX // 8)
    if bits.dtype != np.uint8 or bits.shape != expected:
        raise DatasetError(f"{file}: bits are {bits.dtype} {bits.shape}, not uint8 {expected}")
    return [(str(name), row) for name, row in zip(names, bits, strict=True)]
