"""Makes the bytes of images of every kind that is read, and of some that are not.

The PNG encoder is written here because Pillow's cannot write 16-bit colour, 2-bit grey, interlaced
or broken files; samples go in as they are to be stored.
"""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
"""PNG's colour types."""


def smooth(height: int = 60, width: int = 80) -> NDArray[np.uint8]:
    """(height, width): grey that rises rightwards and darkens downwards, so no turn goes unseen."""
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)
    return np.uint8(np.round(20 + 180 * x[np.newaxis, :] ** 2 * (1 - 0.6 * y[:, np.newaxis])))


def jpeg(samples: NDArray[np.uint8], mode: str = "L", **options: Any) -> bytes:
    """Samples (H, W) or (H, W, channels) of a Pillow mode as a JPEG, nearly lossless."""
    return _saved(_image(samples, mode), "JPEG", **{"quality": 98, "subsampling": 0, **options})


def png(samples: NDArray[np.uint8], mode: str = "L") -> bytes:
    """Samples (H, W) or (H, W, channels) of a Pillow mode as a PNG."""
    return _saved(_image(samples, mode), "PNG")


def gif() -> bytes:
    return _saved(_image(smooth(), "L"), "GIF")


def mpo() -> bytes:
    """A JPEG that holds two pictures."""
    image = _image(smooth(), "L").convert("RGB")
    return _saved(image, "MPO", save_all=True, append_images=[image])


def with_second_picture(
    second: bytes, *, first: NDArray[np.uint8] | None = None, xmp: bytes = b"", order: str = "<"
) -> bytes:
    """A JPEG with an index of two pictures (CIPA DC-007), the second behind it; XMP may go before.

    The sizes and offsets in the index are zero: a reader need not believe them.
    """
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = [
        struct.pack(f"{order}HHI4s", 0xB000, 7, 4, b"0100"),
        struct.pack(f"{order}HHII", 0xB001, 4, 1, 2),
        struct.pack(f"{order}HHII", 0xB002, 7, 32, 50),
    ]
    index = mark + struct.pack(f"{order}IH", 8, 3) + b"".join(entries) + bytes(4 + 32)
    data = with_segment(jpeg(smooth() if first is None else first), 0xE2, b"MPF\0" + index)
    if xmp:
        data = with_segment(data, 0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp)
    return data + second


def apng() -> bytes:
    first, second = _image(smooth(), "L"), _image(smooth()[::-1], "L")
    return _saved(first, "PNG", save_all=True, append_images=[second])


def ycck_jpeg(grey: NDArray[np.uint8]) -> bytes:
    """A grey picture as Adobe's YCCK: YCbCr of the coloured inks, and black, inverted: none."""
    neutral, no_black = np.full_like(grey, 128), np.full_like(grey, 255)
    stored = np.stack([255 - grey, neutral, neutral, no_black], axis=-1)
    cmyk = jpeg(255 - stored, "CMYK")  # Pillow inverts what it stores
    at = cmyk.index(b"Adobe") + 11
    return cmyk[:at] + b"\x02" + cmyk[at + 1 :]


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF block with nothing but an orientation."""
    mark = b"II" if order == "<" else b"MM"
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(f"{order}HIH", 42, 8, 1) + entry + bytes(4)


def with_segment(jpeg_bytes: bytes, code: int, payload: bytes) -> bytes:
    """The JPEG with a segment (``code`` 0xE1 is APP1) right after its start."""
    segment = struct.pack(">BBH", 0xFF, code, len(payload) + 2) + payload
    return jpeg_bytes[:2] + segment + jpeg_bytes[2:]


def chunk(kind: bytes, payload: bytes) -> bytes:
    return (
        struct.pack(">I", len(payload))
        + kind
        + payload
        + struct.pack(">I", zlib.crc32(kind + payload))
    )


def raw_png(
    samples: NDArray[np.integer[Any]],
    colour: int,
    bits: int,
    *,
    interlaced: bool = False,
    before_data: bytes = b"",
) -> bytes:
    """Samples (H, W) or (H, W, channels), as stored, as a PNG; chunks may go before the data."""
    height, width = samples.shape[:2]
    passes = [samples]
    if interlaced:  # Adam7: first column, first row, step right, step down
        grid = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
        passes = [samples[y::down, x::right] for x, y, right, down in [*grid, (0, 1, 1, 2)]]
    rows = [b"\0" + _packed(row, bits) for part in passes if part.size for row in part]
    return png_of(header(width, height, colour, bits, interlaced), rows, before_data)


def header(width: int, height: int, colour: int, bits: int, interlaced: bool = False) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced))


def png_of(ihdr: bytes, rows: list[bytes], before_data: bytes = b"") -> bytes:
    data = chunk(b"IDAT", zlib.compress(b"".join(rows)))
    return b"\x89PNG\r\n\x1a\n" + ihdr + before_data + data + chunk(b"IEND", b"")


def _packed(row: NDArray[np.integer[Any]], bits: int) -> bytes:
    if bits == 16:
        return row.astype(">u2").tobytes()
    bit_rows = np.unpackbits(row.astype(np.uint8).reshape(-1, 1), axis=1)[:, 8 - bits :]
    return np.packbits(bit_rows.reshape(-1)).tobytes()


def _image(samples: NDArray[np.uint8], mode: str) -> Image.Image:
    height, width = samples.shape[:2]
    return Image.frombytes(mode, (width, height), np.ascontiguousarray(samples).tobytes())


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
