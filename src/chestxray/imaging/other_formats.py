"""Names the formats of pictures that are not read, so that a refusal says what to do.

TIFF, BMP, WebP and HEIC are what people have besides. Each would be one more parser of strangers'
bytes, and every viewer saves a PNG or JPEG of them; none keeps more of a radiograph than a PNG.

Does not: read any of them, or look further than their first bytes.
"""

import re

_SIGNATURES = {
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "BMP": rb"BM.{12}[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0",  # the sizes of its headers
    "WebP": rb"RIFF.{4}WEBP",
    "HEIC": rb".{4}ftyp(?:he[iv][a-z]|mif1|msf1)",
    "AVIF": rb".{4}ftypavi[fs]",
    "GIF": rb"GIF8",
    "JPEG 2000": rb"\xff\x4f\xff\x51|\0\0\0\x0cjP(?:  |\x1a\x1a)\r\n\x87\n",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n",
    "JPEG XR": rb"II\xbc",
    "PDF": rb"%PDF-",
}
_WAYS = {name: re.compile(way, re.DOTALL) for name, way in _SIGNATURES.items()}


def name_of(data: bytes) -> str | None:
    """What a file is that is neither JPEG nor PNG nor DICOM, if that is known here."""
    return next((name for name, way in _WAYS.items() if way.match(data)), None)
