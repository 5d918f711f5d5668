"""The heatmap over the radiograph as a picture for any viewer: a Secondary Capture (PS3.3 A.8.1).

The radiograph is shown as the model judged it, and nothing is written on it: what is said stands
in bars above and below. A heatmap whose bundle does not say that it is validated is marked there,
and in the name of its series.

Does not: keep the source's pixel spacing. The picture is not for measuring.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage

from chestxray import __version__
from chestxray.assessment import Assessment
from chestxray.imaging import Radiograph
from chestxray.inference import Prediction, Predictor
from chestxray.inference.rendering import ALPHA, LEVELS, NOT_VALIDATED, PALETTE
from chestxray.pacs.identity import (
    MANUFACTURER,
    NOT_FOR_DIAGNOSTIC_USE,
    ascii_text,
    author_of,
    begin_answer,
    source_identity,
    text_of,
    unspoken,
)

MIN_SIDE_PX, MAX_SIDE_PX = 512, 768
"""What the longest side has at least, so that the text can be read, and at most (2 MB)."""

TEXT_SIZE = 36
"""The longest side divided by the height of the letters."""

HEATMAP_NOT_VALIDATED = "HEATMAP NOT VALIDATED"

WHITE, YELLOW = (255, 255, 255), (255, 214, 0)

# Evidence as bytes: none is _NONE, the scale and more is _NONE + _FULL. The rest of the 256 is room
# for what a bicubic resize overshoots, as it has in floating point, where it costs thrice as much.
_NONE, _FULL = 51, 153

# The rendering's level, colour and alpha of each byte.
_LEVEL = np.uint8(np.clip((np.arange(256.0) - _NONE) / _FULL, 0, 1) * (LEVELS - 1) + 0.5)
_COLOURS = np.frombuffer(PALETTE, np.uint8).reshape(LEVELS, 3)[_LEVEL].tobytes()
_ALPHA = np.frombuffer(ALPHA, np.uint8)[_LEVEL].tolist()


@unspoken()
def make_overlay(source: Dataset, assessment: Assessment) -> Dataset:
    """The overlay of ``source`` by one bundle, which has answered; ready to be written.

    It is a function of the arguments.

    Raises:
        DamagedFileError: the source lacks a UID that the overlay must refer to.
    """
    of, predictor = source_identity(source), assessment.assessor.predictor
    validated = predictor.manifest.evidence.validated
    _, prediction = assessment.answer
    finding = ascii_text(predictor.manifest.finding.code.meaning)
    ds = begin_answer("overlay", SecondaryCaptureImageStorage, source, author_of([predictor]))
    # Not the source's: a viewer that hangs radiographs by modality must not take this for one.
    ds.Modality = "OT"
    ds.ConversionType = "WSD"
    ds.BodyPartExamined = "CHEST"
    named = f"{'AI heatmap' if validated else 'Unvalidated AI heatmap'}, {finding}"[:39]
    ds.SeriesDescription = f"{named} - {NOT_FOR_DIAGNOSTIC_USE.lower()}"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.DerivationDescription = (
        f"{NOT_FOR_DIAGNOSTIC_USE}. Evidence for {finding}, found by {MANUFACTURER} {__version__} "
        f"(bundle {predictor.bundle_sha256}), laid in colours over the radiograph, which is "
        f"upright, windowed and resized{', and its negative' if prediction.inverted else ''}."
        f"{'' if validated else f' {NOT_VALIDATED.capitalize()}.'}"
    )
    ds.DerivationCodeSequence = [_code(codes.DCM.SpatialResampling)]
    image = Dataset()
    image.ReferencedSOPClassUID = of.sop_class_uid
    image.ReferencedSOPInstanceUID = of.sop_instance_uid
    image.PurposeOfReferenceCodeSequence = [_code(codes.DCM.SourceImageForImageProcessingOperation)]
    ds.SourceImageSequence = [image]
    ds.PatientOrientation = ["L", "F"] if text_of(source, "PatientOrientation") else None
    # What is burned in here identifies nobody; what was before is still there (PS3.3 C.7.6.1).
    if text_of(source, "BurnedInAnnotation") in {"YES", "NO"}:
        ds.BurnedInAnnotation = text_of(source, "BurnedInAnnotation")
    if text_of(source, "LossyImageCompression") == "01":
        ds.LossyImageCompression = "01"
    picture = draw_overlay(assessment)
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.PlanarConfiguration = 0
    ds.Columns, ds.Rows = picture.size
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    pixels = picture.tobytes()
    ds.add_new("PixelData", "OB", pixels + b"\0" * (len(pixels) % 2))
    return ds


def draw_overlay(assessment: Assessment) -> Image.Image:
    """The radiograph under its heatmap between two bars of text, RGB.

    The longest side is the radiograph's, within ``MIN_SIDE_PX`` and ``MAX_SIDE_PX``.
    """
    radiograph, prediction = assessment.answer
    predictor = assessment.assessor.predictor
    rows, columns = radiograph.pixels.shape
    side_px = min(max(rows, columns, MIN_SIDE_PX), MAX_SIDE_PX)
    line_px = round(1.4 * side_px / TEXT_SIZE)
    above = [_written(line, side_px) for line in _cautions(predictor)]
    below = [_written(line, side_px) for line in _lines(prediction, predictor)]
    bars_px = line_px * (len(above) + len(below))
    scale = min(side_px / columns, (side_px - bars_px) / rows)
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))

    width_px = max(size[0], *(words.width for words in (*above, *below)))
    canvas = Image.new("RGB", (width_px, size[1] + bars_px))
    corner = ((width_px - size[0]) // 2, line_px * len(above))
    canvas.paste(_grey(radiograph, size, negative=prediction.inverted), corner)
    heatmap, alpha = _heatmap(prediction, predictor.manifest.evidence.scale, size)
    canvas.paste(heatmap, corner, alpha)
    for number, words in enumerate(above):
        canvas.paste(YELLOW, (0, number * line_px), words)
    for number, words in enumerate(below, len(above)):
        canvas.paste(WHITE, (0, size[1] + number * line_px), words)
    return canvas


def _grey(radiograph: Radiograph, size: tuple[int, int], *, negative: bool) -> Image.Image:
    shrinks = size[0] < radiograph.pixels.shape[1]
    # The mean of what becomes one pixel costs half of what BICUBIC does, and looks the same.
    how = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    grey = np.array(Image.fromarray(radiograph.pixels).resize(size, how))
    grey *= np.float32(-255 if negative else 255)
    grey += np.float32(255.5 if negative else 0.5)
    return Image.fromarray(np.clip(grey, 0, 255, out=grey).astype(np.uint8))


def _heatmap(
    prediction: Prediction, scale: float, size: tuple[int, int]
) -> tuple[Image.Image, Image.Image]:
    """Colours and alpha, as ``render_heatmap`` has them: neither may look different."""
    strength = np.clip(prediction.evidence / np.float32(scale), 0, 1)
    cells = np.round(_NONE + _FULL * strength).astype(np.uint8)
    heatmap = Image.fromarray(cells).resize(size, Image.Resampling.BICUBIC)
    alpha = heatmap.point(_ALPHA)
    heatmap.putpalette(_COLOURS)
    return heatmap.convert("RGB"), alpha


def _cautions(predictor: Predictor) -> list[str]:
    validated = predictor.manifest.evidence.validated
    return [NOT_FOR_DIAGNOSTIC_USE, *([] if validated else [HEATMAP_NOT_VALIDATED])]


def _lines(prediction: Prediction, predictor: Predictor) -> list[str]:
    finding, label = predictor.manifest.finding.positive[:32], prediction.label[:32]
    uncertain = "   UNCERTAIN" if prediction.uncertain else ""
    negative = ", over the negative" if prediction.inverted else ""
    return [
        f"{label}{uncertain}   probability of {finding} {prediction.probability:.3f}",
        f"threshold {prediction.threshold:.3f}, {ascii_text(prediction.operating_point)}",
        f"colours: evidence for {finding}{negative}",
        f"{ascii_text(predictor.manifest.name)[:32]} {predictor.bundle_sha256[:12]}",
    ]


@lru_cache(maxsize=64)
def _written(line: str, side_px: int) -> Image.Image:
    """A mask, margins included. Most lines are the same in every overlay by one bundle."""
    size_px = side_px // TEXT_SIZE
    line_px = round(1.4 * side_px / TEXT_SIZE)
    margin_px = line_px // 2
    too_long = _font(size_px).getlength(line) / (side_px - 2 * margin_px)
    font = _font(int(size_px / max(1, too_long)))
    mask = Image.new("L", (int(font.getlength(line)) + 2 * margin_px, line_px))
    ImageDraw.Draw(mask).text((margin_px, line_px // 2), line, 255, font, "lm")
    return mask


@lru_cache(maxsize=8)
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _code(code: Code) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code[:3]
    return item
