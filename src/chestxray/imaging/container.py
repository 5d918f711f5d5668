"""What the walks through JPEG and PNG files (``jpeg_file``, ``png_file``) have in common.

A walk refuses what is truncated, animated or too large before a pixel is decoded, finds the
orientation, and leaves a copy of the file with nothing in it but the coded pixels. Only that copy
is decoded. So the text, profiles, thumbnails and Exif of strangers reach no parser but the few
lines here: no compressed text expands, nothing warns, and a broken comment costs nobody an answer.

Source: CIPA DC-008 (Exif). Does not: read XMP, or complain of broken metadata.
"""

import struct
from dataclasses import dataclass

# A file of empty parts could ask for minutes of walking. Real ones have one per 8 KiB or per row.
MAX_PARTS = 100_000

_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class Coded:
    """An image found whole but not decoded.

    ``width_px`` and ``height_px`` are as stored; turning that by the Exif ``orientation`` (1 to 8)
    makes it upright. ``parts`` are those of the file that are no metadata. ``decoder_bytes`` is
    what the decoder holds of the picture in full size, ``stored_bytes`` what is kept of it then: 1
    or 2 for each grey value, and 1 for each opacity.
    """

    width_px: int
    height_px: int
    orientation: int
    parts: list[memoryview]
    decoder_bytes: int
    stored_bytes: int

    @property
    def content(self) -> bytes:
        """The file without its metadata."""
        return b"".join(self.parts)


def exif_orientation(block: bytes) -> int:
    """The orientation (1 to 8) in an Exif TIFF block; 1, as stored, if it gives none."""
    value = tiff_value(block, _ORIENTATION)
    return value if value is not None and 1 <= value <= 8 else 1


def tiff_value(block: bytes, tag: int) -> int | None:
    """The SHORT or LONG under ``tag`` in the first directory of a TIFF block, if it is readable."""
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, directory)
        for entry in range(directory + 2, directory + 2 + 12 * entries, 12):
            found, kind = struct.unpack_from(f"{order}HH", block, entry)
            if found == tag:
                code = {3: "H", 4: "I"}[kind]
                return int(struct.unpack_from(order + code, block, entry + 8)[0])
    except (struct.error, KeyError):
        pass  # broken metadata: the picture is taken as it is stored
    return None
