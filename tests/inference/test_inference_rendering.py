"""A heatmap shows evidence on one scale for all, where it is, and lets the radiograph through."""

import io

import numpy as np
from PIL import Image

from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import render_heatmap, render_preview


def rgba(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.mode) == ("PNG", "P")
        return np.asarray(image.convert("RGBA")).astype(int)


def one_cell(row: int, column: int, value: float) -> np.ndarray:
    evidence = np.zeros((7, 7), np.float32)
    evidence[row, column] = value
    return evidence


def test_no_evidence_and_evidence_against_are_fully_transparent() -> None:
    for evidence in (np.zeros((7, 7), np.float32), np.full((7, 7), -3, np.float32)):
        assert (rgba(render_heatmap(evidence, 2.0))[..., 3] == 0).all()


def test_stronger_evidence_is_lighter_and_less_transparent() -> None:
    shades = [
        rgba(render_heatmap(np.full((7, 7), share * 5, np.float32), 5.0))[0, 0]
        for share in np.linspace(0, 1, 9)
    ]
    lightness = [shade[:3] @ [0.2126, 0.7152, 0.0722] for shade in shades]
    assert lightness == sorted(set(lightness))
    alpha = [shade[3] for shade in shades]
    assert alpha == sorted(set(alpha))
    assert alpha[-1] < 255


def test_weak_evidence_looks_weak_because_no_map_is_stretched_to_itself() -> None:
    weak, strong = one_cell(3, 3, 0.2), one_cell(3, 3, 2.0)
    peaks = [rgba(render_heatmap(evidence, 2.0))[..., 3].max() for evidence in (weak, strong)]
    assert peaks[0] < 0.2 * peaks[1]


def test_evidence_beyond_the_scale_is_drawn_like_evidence_at_it() -> None:
    at, beyond = (np.full((7, 7), value, np.float32) for value in (2.0, 200.0))
    assert render_heatmap(at, 2.0) == render_heatmap(beyond, 2.0)


def test_the_heat_lies_over_the_cell_that_it_comes_from() -> None:
    alpha = rgba(render_heatmap(one_cell(1, 5, 2.0), 2.0))[..., 3]
    rows, columns = np.nonzero(alpha == alpha.max())
    assert (rows.mean() + 0.5, columns.mean() + 0.5) == (1.5 * 32, 5.5 * 32)


def test_the_heatmap_is_square_of_the_side_asked_for_and_a_few_kilobytes() -> None:
    evidence = np.random.default_rng(0).normal(0, 2, (7, 7)).astype(np.float32)
    png = render_heatmap(evidence, 3.0)
    assert rgba(png).shape == (224, 224, 4)
    assert len(png) < 12_000
    assert rgba(render_heatmap(evidence, 3.0, side_px=96)).shape == (96, 96, 4)


def test_the_preview_is_what_the_network_saw() -> None:
    pixels = synthetic_radiograph(0, 224)
    with Image.open(io.BytesIO(render_preview(pixels, 224))) as image:
        assert (image.mode, image.size) == ("L", (224, 224))
        np.testing.assert_allclose(np.asarray(image) / 255, pixels, atol=1e-6)
    with Image.open(io.BytesIO(render_preview(pixels, 64))) as image:
        assert image.size == (64, 64)
