"""From the bytes of a file to a radiograph: tells the format by the first bytes and decodes it.

Does not: believe a file's name or declared type, or stretch and normalise (``network_input``).
"""

from pathlib import Path

from chestxray.errors import (
    EmptyFileError,
    TooManyBytesError,
    TruncatedFileError,
    UnsupportedFormatError,
)
from chestxray.imaging import jpeg_file, png_file
from chestxray.imaging.dicom import decode_dicom, is_dicom
from chestxray.imaging.radiograph import Limits, Radiograph
from chestxray.imaging.raster import decode_jpeg, decode_png

# Every format that is read: its first bytes and its decoder.
_DECODERS = ((jpeg_file.SIGNATURE, decode_jpeg), (png_file.SIGNATURE, decode_png))

_DEFAULT_LIMITS = Limits()


def read(data: bytes, limits: Limits = _DEFAULT_LIMITS) -> Radiograph:
    """Decode a JPEG, PNG or DICOM file, upright and grey. Safe to call from many threads.

    Raises:
        UnreadableError: it cannot be read.
        LimitError: it is larger than ``limits``.
        RefusedError: a side is shorter than ``limits`` ask for, or a DICOM file says that it is no
            frontal chest radiograph.
    """
    if not data:
        raise EmptyFileError("the file is empty")
    if len(data) > limits.max_bytes:
        raise TooManyBytesError(f"the file has more than the {limits.max_bytes} bytes accepted")
    # A Part 10 file may begin as another file does: its first 128 bytes are anybody's.
    if is_dicom(data):
        return decode_dicom(data, limits)
    for signature, decode in _DECODERS:
        if data.startswith(signature):
            return decode(data, limits)
        if signature.startswith(data):
            raise TruncatedFileError("the file ends within its signature")
    raise UnsupportedFormatError("the file is neither a JPEG nor a PNG nor DICOM")


def read_file(path: Path, limits: Limits = _DEFAULT_LIMITS) -> Radiograph:
    """``read`` a file, of which never more than ``limits.max_bytes`` (and one) are loaded.

    Raises:
        OSError: the file cannot be opened.
        ChestXrayError: as ``read`` does.
    """
    if path.stat().st_size > limits.max_bytes:
        raise TooManyBytesError(f"the file has more than the {limits.max_bytes} bytes accepted")
    with path.open("rb") as file:
        return read(file.read(limits.max_bytes + 1), limits)
