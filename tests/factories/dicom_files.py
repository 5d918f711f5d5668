"""Makes DICOM files: a phantom's chest radiograph unless told otherwise, in any transfer syntax.

Encoders are imagecodecs' and, for RLE, pydicom's; nothing here shares code with the reader.
"""

from collections.abc import Callable
from copy import deepcopy
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import dcmwrite, uid
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from chestxray.imaging.synthetic import synthetic_radiograph

CR = "1.2.840.10008.5.1.4.1.1.1"
DX = "1.2.840.10008.5.1.4.1.1.1.1"

CHEST: dict[str, Any] = {
    "SOPClassUID": CR,
    "SOPInstanceUID": "1.2.826.0.1.3680043.8.498.1",
    "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.2",
    "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.3",
    "StudyDate": "20260102",
    "StudyTime": "101112",
    "AcquisitionDate": "20260102",
    "AcquisitionTime": "101500.5",
    "AccessionNumber": "A-1",
    "Modality": "CR",
    "Manufacturer": "Phantom",
    "ReferringPhysicianName": "",
    "PatientName": "Phantom^Paula",
    "PatientID": "P-1",
    "PatientBirthDate": "20230101",
    "PatientSex": "F",
    "PatientAge": "003Y",
    "BodyPartExamined": "CHEST",
    "ViewPosition": "PA",
    "StudyID": "1",
    "SeriesNumber": 1,
    "InstanceNumber": 1,
    "PatientOrientation": ["L", "F"],
}
"""Of a frontal radiograph of a child that shows nobody."""


def phantom(bits: int = 12, side_px: int = 256, seed: int = 1) -> NDArray[np.uint16]:
    """(side_px, side_px) stored values of ``bits``, air dark."""
    return np.uint16(np.round(synthetic_radiograph(seed, side_px) * (2**bits - 1)))


def data_set(stored: NDArray[Any] | None = None, *, bits: int = 12, **attributes: Any) -> Dataset:
    """A data set with native pixel data; an attribute of ``None`` is left out.

    ``stored`` is (rows, columns) or (rows, columns, 3), signed or not, 8 or 16 bits allocated.
    """
    stored = phantom(bits) if stored is None else stored
    ds = Dataset()
    ds.Rows, ds.Columns = stored.shape[:2]
    ds.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    ds.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    if stored.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = stored.dtype.itemsize * 8
    ds.BitsStored = min(bits, ds.BitsAllocated)
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(np.issubdtype(stored.dtype, np.signedinteger))
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    ds.add_new("PixelData", "OW" if ds.BitsAllocated > 8 else "OB", data + b"\0" * (len(data) % 2))
    for keyword, value in {**CHEST, **attributes}.items():
        if value is not None:
            with disable_value_validation():  # files have values that are against the standard
                setattr(ds, keyword, value)
        elif keyword in ds:
            delattr(ds, keyword)
    return ds


def lut(first: int, entries: NDArray[Any], bits: int, vr: str = "US") -> Dataset:
    """The item of a modality or VOI LUT sequence; ``first`` is the value of its first entry."""
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 65536, first, bits])
    item.add_new("LUTData", "OW", np.asarray(entries, "<u2").tobytes())
    return item


def part10(ds: Dataset, transfer_syntax: str = uid.ExplicitVRLittleEndian) -> bytes:
    """A data set as a Part 10 file; its pixel data must be in ``transfer_syntax`` already."""
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    ds.file_meta.MediaStorageSOPClassUID = ds.get("SOPClassUID", CR)
    ds.file_meta.MediaStorageSOPInstanceUID = ds.get("SOPInstanceUID", "1.2.3")
    with disable_value_validation(), BytesIO() as buffer:
        ds.save_as(buffer, enforce_file_format=True)
        return buffer.getvalue()


def dicom(stored: NDArray[Any] | None = None, *, bits: int = 12, **attributes: Any) -> bytes:
    """``data_set`` as a Part 10 file in Explicit VR Little Endian."""
    return part10(data_set(stored, bits=bits, **attributes))


_Encode = Callable[[NDArray[Any], int], bytes]


def _lossless_jpeg(predictor: int) -> _Encode:
    return lambda stored, bits: imagecodecs.jpeg8_encode(
        stored, lossless=True, predictor=predictor, bitspersample=bits
    )


def _lossy_jpeg(stored: NDArray[Any], bits: int) -> bytes:
    return imagecodecs.jpeg8_encode(stored, level=100, bitspersample=8 if bits <= 8 else 12)


def _jpeg_ls(near: int) -> _Encode:
    return lambda stored, _: imagecodecs.jpegls_encode(stored, level=near)


def _jpeg_2000(**how: Any) -> _Encode:
    return lambda stored, bits: imagecodecs.jpeg2k_encode(
        stored, codecformat="J2K", bitspersample=bits, **how
    )


ENCODERS: dict[UID, _Encode] = {
    uid.JPEGBaseline8Bit: _lossy_jpeg,
    uid.JPEGExtended12Bit: _lossy_jpeg,
    uid.JPEGLossless: _lossless_jpeg(4),
    uid.JPEGLosslessSV1: _lossless_jpeg(1),
    uid.JPEGLSLossless: _jpeg_ls(0),
    uid.JPEGLSNearLossless: _jpeg_ls(1),
    uid.JPEG2000Lossless: _jpeg_2000(reversible=True),
    uid.JPEG2000: _jpeg_2000(level=60),
    uid.HTJ2KLossless: lambda stored, _: imagecodecs.htj2k_encode(stored),
}
"""What encodes stored values of a number of bits into one frame, by transfer syntax."""

NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
)
COMPRESSED = (uid.RLELossless, *ENCODERS)


def compressed(
    stored: NDArray[Any],
    transfer_syntax: str,
    *,
    bits: int = 12,
    frame: bytes | None = None,
    fragments: int = 1,
    **attributes: Any,
) -> bytes:
    """A Part 10 file whose one frame is encapsulated in a compressed ``transfer_syntax``.

    ``frame`` goes in as it is where it is given.
    """
    ds = data_set(stored, bits=bits, **attributes)
    if transfer_syntax == uid.RLELossless and frame is None:
        part10(ds)  # compress() asks what it compresses from
        ds.compress(uid.RLELossless, generate_instance_uid=False)
        return part10(ds, transfer_syntax)
    if frame is None:
        frame = ENCODERS[UID(transfer_syntax)](stored, bits)
    del ds.PixelData
    ds.add_new("PixelData", "OB", encapsulate([frame], fragments_per_frame=fragments))
    ds["PixelData"].is_undefined_length = True
    return part10(ds, transfer_syntax)


def in_syntax(ds: Dataset, transfer_syntax: str) -> bytes:
    """A data set with native pixel data as a Part 10 file in a native ``transfer_syntax``."""
    if transfer_syntax == uid.ExplicitVRBigEndian:
        ds = _with_swapped_words(ds)
    return part10(ds, transfer_syntax)


def bare(ds: Dataset, transfer_syntax: str) -> bytes:
    """As ``in_syntax``, without preamble and file meta information."""
    ds = _with_swapped_words(ds) if transfer_syntax == uid.ExplicitVRBigEndian else deepcopy(ds)
    ds.file_meta = FileMetaDataset()
    syntax = UID(transfer_syntax)
    with BytesIO() as buffer:
        dcmwrite(
            buffer,
            ds,
            implicit_vr=syntax.is_implicit_VR,
            little_endian=syntax.is_little_endian,
            enforce_file_format=False,
        )
        return buffer.getvalue()


def _with_swapped_words(ds: Dataset) -> Dataset:
    """The bytes of OW are for the writer to swap; it leaves them as they are."""
    swapped = deepcopy(ds)
    for item in [swapped, *swapped.get("VOILUTSequence", [])]:
        for element in item:
            if element.VR == "OW":
                element.value = np.frombuffer(element.value, "<u2").astype(">u2").tobytes()
    return swapped
