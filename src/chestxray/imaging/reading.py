"""From the bytes of a file to a radiograph: tells the format by the first bytes and decodes it.

Does not: believe a file's name or declared type, judge what a file says of itself (``assessment``
does), or stretch and normalise (``network_input``).
"""

from pathlib import Path

from chestxray.errors import (
    EmptyFileError,
    TooManyBytesError,
    TruncatedFileError,
    UnsupportedFormatError,
)
from chestxray.imaging import jpeg_file, png_file
from chestxray.imaging.dicom import is_dicom, open_data_set, read_data_set
from chestxray.imaging.other_formats import name_of
from chestxray.imaging.radiograph import Limits, Opened, Radiograph
from chestxray.imaging.raster import open_jpeg, open_png

_RASTER = ((jpeg_file.SIGNATURE, open_jpeg), (png_file.SIGNATURE, open_png))
"""The formats' first bytes, and what opens them."""

_DEFAULT_LIMITS = Limits()


def open_file(data: bytes, limits: Limits = _DEFAULT_LIMITS) -> Opened:
    """Recognise a JPEG, PNG or DICOM file. Safe to call from many threads, as is its ``decode``.

    What cannot be read, is larger than ``limits`` or is no single grey picture may be noticed here
    or by ``decode``.

    Raises:
        UnreadableError: it cannot be read.
        LimitError: it is larger than ``limits``.
        RefusedError: a side is shorter than ``limits`` ask for, or a DICOM file holds no picture,
            several, or one in colour.
    """
    if not data:
        raise EmptyFileError("the file is empty")
    if len(data) > limits.max_bytes:
        raise TooManyBytesError(f"the file has more than the {limits.max_bytes} bytes accepted")
    # A Part 10 file may begin as another file does: its first 128 bytes are anybody's.
    if is_dicom(data):
        return open_data_set(read_data_set(data, limits), limits)
    for signature, opened in _RASTER:
        if data.startswith(signature):
            return opened(data, limits)
        if signature.startswith(data):
            raise TruncatedFileError("the file ends within its signature")
    name = name_of(data)
    if name is not None:
        raise UnsupportedFormatError(f"the file is a {name}: send a JPEG, PNG or DICOM file")
    raise UnsupportedFormatError("the file is neither a JPEG nor a PNG nor DICOM")


def read(
    data: bytes, limits: Limits = _DEFAULT_LIMITS, shrink_to_px: int | None = None
) -> Radiograph:
    """Decode a file, upright and grey, whatever it says of how it was made.

    Raises:
        ChestXrayError: as ``open_file`` does.
    """
    return open_file(data, limits).decode(shrink_to_px)


def load(path: Path, limits: Limits = _DEFAULT_LIMITS) -> bytes:
    """The bytes of a file, of which never more than ``limits.max_bytes`` are loaded.

    Raises:
        OSError: the file cannot be opened.
        TooManyBytesError: it has more.
    """
    with path.open("rb") as file:
        data = file.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise TooManyBytesError(f"the file has more than the {limits.max_bytes} bytes accepted")
    return data


def read_file(
    path: Path, limits: Limits = _DEFAULT_LIMITS, shrink_to_px: int | None = None
) -> Radiograph:
    """``load`` and ``read`` a file."""
    return read(load(path, limits), limits, shrink_to_px)
