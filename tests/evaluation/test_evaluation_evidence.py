"""Evidence is judged on maps, boxes and pictures whose right figures are known by construction."""

import io
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score

from chestxray.dataset import Box, Sample, read_dataset
from chestxray.dataset.lungs import SIDE_PX
from chestxray.evaluation import evidence
from chestxray.evaluation.breakdown import Answered
from chestxray.evaluation.evaluate import Scored, answered_of
from chestxray.evaluation.evidence import (
    against_boxes,
    box_map,
    deletion,
    evidence_of,
    hit,
    matched,
    patch,
    share_within,
)
from chestxray.imaging import Radiograph
from chestxray.inference import Prediction, enlarge, render_heatmap
from chestxray.inference.rendering import MAX_ALPHA
from factories import images
from factories.bundles import tiny_manifest, tiny_model
from factories.datasets import LABELS, write_files
from factories.predictions import prediction

CELLS = 8
CELL_PX = SIDE_PX // CELLS


def one_cell(row: int, column: int) -> np.ndarray:
    cells = np.zeros((CELLS, CELLS), np.float32)
    cells[row, column] = 1
    return cells


def over_cell(row: int, column: int) -> np.ndarray:
    """The box map (SIDE_PX squared) of a box exactly over a cell."""
    return box_map([Box(column, row, 1, 1, "")], CELLS, CELLS)


def subjects(n: int) -> list[str]:
    return [str(number) for number in range(n)]


def values(found: dict) -> dict[str, float]:
    return {name: of["value"] for name, of in found.items() if "value" in of}


# --- what is judged


def test_a_box_is_scaled_with_the_file_and_reaches_no_further():
    inside = box_map([Box(0, 0, 50, 80, ""), Box(90, 70, 100, 100, "")], 100, 80)
    expected = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    expected[:, : SIDE_PX // 2] = True
    expected[SIDE_PX * 7 // 8 :, np.arange(SIDE_PX) + 0.5 >= 0.9 * SIDE_PX] = True
    np.testing.assert_array_equal(inside, expected)


def test_the_map_that_is_judged_is_the_heatmap_that_is_shown():
    cells = np.random.default_rng(0).uniform(0, 1, (7, 7)).astype(np.float32)
    with Image.open(io.BytesIO(render_heatmap(cells, 1.0))) as image:
        alpha = np.asarray(image.convert("RGBA"))[..., 3].astype(float)
    shown = np.clip(enlarge(cells, SIDE_PX), 0, 1)
    np.testing.assert_allclose(alpha / MAX_ALPHA, shown, atol=1 / 60)


# --- boxes


def test_a_peak_inside_the_box_points_and_one_outside_does_not():
    maps = [one_cell(2, 3), one_cell(5, 6)]
    inside = np.stack([over_cell(2, 3), over_cell(5, 6)])
    assert values(against_boxes(maps, inside, subjects(2)))["pointing"] == 1
    assert values(against_boxes(maps[::-1], inside, subjects(2)))["pointing"] == 0
    mixed = against_boxes([maps[0], maps[0]], inside, subjects(2))
    assert values(mixed)["pointing"] == 0.5


def test_chance_is_the_mean_area_of_boxes_and_what_a_flat_map_reaches():
    inside = np.stack([over_cell(2, 3), over_cell(2, 3) | over_cell(5, 6)])
    flat = np.ones((CELLS, CELLS), np.float32)
    found = values(against_boxes([flat, flat], inside, subjects(2)))
    assert found["chance"] == pytest.approx(1.5 / CELLS**2)
    assert found["pointing"] == pytest.approx(found["chance"])
    assert found["auprc"] == pytest.approx(found["chance"])
    assert found["auprc_pooled"] == pytest.approx(found["chance"])


def test_evidence_that_is_the_boxes_has_an_auprc_of_1():
    inside = np.stack([over_cell(2, 3), over_cell(5, 6)])
    found = values(against_boxes(list(inside.astype(np.float32)), inside, subjects(2)))
    assert found["auprc"] == found["auprc_pooled"] == pytest.approx(1)
    assert found["pointing"] == 1


def test_auprc_is_the_mean_average_precision_of_radiographs_and_that_of_all_in_one_pool():
    random = np.random.default_rng(0)
    maps = [random.normal(number, 1, (CELLS, CELLS)).astype(np.float32) for number in range(3)]
    inside = np.stack([over_cell(n, n) | (enlarge(maps[n], SIDE_PX) > 1.5 + n) for n in range(3)])
    found = values(against_boxes(maps, inside, subjects(3)))
    shown = np.stack([enlarge(cells, SIDE_PX) for cells in maps])
    pooled = average_precision_score(inside.ravel(), shown.ravel())
    assert found["auprc_pooled"] == pytest.approx(pooled, abs=1e-3)
    alone = [
        average_precision_score(region.ravel(), map_.ravel())
        for region, map_ in zip(inside, shown, strict=True)
    ]
    assert found["auprc"] == pytest.approx(np.mean(alone))
    assert found["auprc"] > pooled + 0.1  # the maps have not one scale


def test_the_best_fixed_point_lies_where_the_most_boxes_are():
    inside = np.stack([over_cell(2, 3)] * 3 + [over_cell(5, 6)])
    maps = [one_cell(5, 6)] * 4
    found = against_boxes(maps, inside, subjects(4))
    assert found["best_fixed_point"]["value"] == 0.75
    at = found["best_fixed_point_at"]
    assert (int(at["y"] * CELLS), int(at["x"] * CELLS)) == (2, 3)
    assert found["pointing_above_fixed_point"]["value"] == 0.25 - 0.75


def test_the_location_prior_knows_the_other_subjects_boxes_and_not_ones_own():
    same = np.stack([over_cell(2, 3)] * 3)
    found = values(against_boxes([one_cell(0, 0)] * 3, same, subjects(3)))
    assert (found["prior_pointing"], found["prior_auprc"]) == (1, pytest.approx(1))
    assert found["prior_auprc_pooled"] == pytest.approx(1)
    apart = np.stack([over_cell(2, 3), over_cell(2, 3), over_cell(5, 6)])
    found = values(against_boxes([one_cell(0, 0)] * 3, apart, ["a", "a", "b"]))
    assert found["prior_pointing"] == 0


def test_the_prior_of_a_single_subject_is_chance():
    inside = np.stack([over_cell(2, 3)])
    found = values(against_boxes([one_cell(2, 3)], inside, subjects(1)))
    assert found["prior_pointing"] == pytest.approx(1 / CELLS**2)


def test_intervals_are_of_subjects():
    inside = np.stack([over_cell(2, 3)] * 20)
    maps = [one_cell(2, 3)] * 10 + [one_cell(5, 6)] * 10
    many = against_boxes(maps, inside, subjects(20))["pointing"]
    two = against_boxes(maps, inside, ["a"] * 10 + ["b"] * 10)["pointing"]
    assert many["value"] == two["value"] == 0.5
    assert 0 < many["ci_low"] < 0.5 < many["ci_high"] < 1
    assert (two["ci_low"], two["ci_high"]) == (0, 1)


# --- lungs


def test_evidence_against_the_finding_counts_nowhere():
    cells = one_cell(2, 3) + one_cell(5, 6) - 9 * one_cell(0, 0)
    above = np.clip(enlarge(cells, SIDE_PX), 0, None)
    region = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    region[: SIDE_PX // 2] = True
    assert share_within(cells, region) == pytest.approx(above[region].sum() / above.sum())
    assert share_within(cells, ~region) == pytest.approx(1 - share_within(cells, region))
    assert np.isnan(share_within(np.full((CELLS, CELLS), -1, np.float32), region))


# --- all of it


class Brightest:
    """A predictor whose logit is ten times the sum of its evidence: cells brighter than 0.6.

    ``upside_down`` turns the map that it shows, so that it no longer says what decides.
    """

    bundle_sha256 = "0" * 64

    def __init__(self, *, upside_down: bool = False) -> None:
        self.manifest = tiny_manifest(tiny_model())
        self._order = -1 if upside_down else 1

    def predict(self, radiographs: Sequence[Radiograph]) -> list[Prediction]:
        found = []
        for radiograph in radiographs:
            side = len(radiograph.pixels) // CELLS
            cells = radiograph.pixels.reshape(CELLS, side, CELLS, side).mean(axis=(1, 3))
            bright = np.clip(cells - 0.6, 0, None).astype(np.float32)
            found.append(
                prediction(0.9, logit=10 * float(bright.sum()), evidence=bright[:: self._order])
            )
        return found


SQUARES = [(row, column) for row in (1, 2, 5) for column in (1, 4, 6)]


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> list[Sample]:
    """Faint noise without the finding; with it, one bright cell somewhere."""
    files = {}
    for number, (row, column) in enumerate(SQUARES):
        for truth in LABELS:
            levels = np.random.default_rng((number, truth == "NORMAL")).integers(60, 120, (64, 64))
            if truth == LABELS.positive:
                levels[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 230
            files[f"{truth}/{number}.png"] = images.png(levels.astype(np.uint8))
    folder = write_files(tmp_path_factory.mktemp("evidence"), files)
    return read_dataset(folder, LABELS)


def scored_by(predictor: Brightest, samples: Sequence[Sample]) -> list[Scored]:
    found = []
    for of in samples:
        with Image.open(of.file) as image:
            pixels = np.asarray(image, np.float32) / 255
        (answer,) = predictor.predict([Radiograph(pixels, "PNG", 64, 64)])
        found.append(Scored(of, answer, size_px=(64, 64)))
    return found


def parts(predictor: Brightest, samples: Sequence[Sample]) -> tuple[Answered, Answered]:
    every = answered_of(scored_by(predictor, samples))
    return every.part(every.truth.tolist()), every.part((~every.truth).tolist())


def test_where_the_evidence_decides_covering_its_peak_costs_the_logit(samples):
    predictor = Brightest()
    found = deletion(predictor, *parts(predictor, samples), {})
    assert found["n"] == len(SQUARES)
    assert found["at_peak"]["ci_low"] > 1
    assert found["peak_over_random"]["ci_low"] > 3
    assert (found["over_lungs"], found["n_with_lungs"]) == (None, 0)


def test_where_the_map_shows_something_else_covering_its_peak_costs_nothing(samples):
    predictor = Brightest(upside_down=True)
    found = deletion(predictor, *parts(predictor, samples), {})
    assert found["at_peak"]["value"] == pytest.approx(0, abs=0.05)
    assert found["peak_over_random"]["value"] < 1


def test_the_lungs_are_covered_where_there_are_masks(samples):
    predictor = Brightest()
    positive, negative = parts(predictor, samples)
    everything = np.ones((SIDE_PX, SIDE_PX), dtype=bool)
    lungs = {of.path: everything if n % 2 else ~everything for n, of in enumerate(positive.samples)}
    del lungs[positive.samples[0].path]
    found = deletion(predictor, positive, negative, lungs)
    assert found["n_with_lungs"] == len(SQUARES) - 1
    lost = [of.logit * (n % 2) for n, of in enumerate(positive.predictions)][1:]
    assert found["over_lungs"]["value"] == pytest.approx(np.mean(lost), rel=0.05)


def test_the_deletion_is_the_same_every_time_and_with_any_number_of_threads(samples, monkeypatch):
    predictor = Brightest()
    positive, negative = parts(predictor, samples)
    once, again = (deletion(predictor, positive, negative, {}, threads=n) for n in (1, 3))
    assert once == again
    monkeypatch.setattr(evidence, "MAX_COVERED", 4)
    assert deletion(predictor, positive, negative, {})["n"] == 4


def test_what_was_not_given_has_no_figure(samples):
    predictor = Brightest()
    found = evidence_of(predictor, scored_by(predictor, samples))
    assert (found["boxes"], found["lungs"], found["deletion"]["over_lungs"]) == (None, None, None)
    assert found["peaks"]["n"] == len(SQUARES)
    assert found["peaks"]["in_lowest_quarter"]["value"] == 0
    turned = Brightest(upside_down=True)
    found = evidence_of(turned, scored_by(turned, samples))
    assert found["peaks"]["in_lowest_quarter"]["value"] == pytest.approx(3 / 9)


def test_boxes_and_lungs_are_judged_on_the_radiographs_that_have_them(samples):
    predictor = Brightest()
    scored = scored_by(predictor, samples)
    boxes = {
        f"PNEUMONIA/{n}.png": [Box(16 * column, 4 * row, 16, 4, "opacity")]
        for n, (row, column) in enumerate(SQUARES[:4])
    }
    # The files as they are stored are twice as wide and half as high as what the network sees.
    scored = [replace(of, size_px=(128, 32)) for of in scored]
    lower = np.zeros((SIDE_PX, SIDE_PX), dtype=bool)
    lower[SIDE_PX // 2 :] = True
    lungs = {"PNEUMONIA/0.png": lower, "PNEUMONIA/8.png": lower, "NORMAL/0.png": lower}
    found = evidence_of(predictor, scored, boxes=boxes, lungs=lungs)
    against, within = found["boxes"], found["lungs"]
    assert (against["n"], against["n_boxes"], against["findings"]) == (4, 4, {"opacity": 4})
    assert against["pointing"]["value"] == 1
    assert against["auprc"]["value"] > 0.8
    assert within["positive"]["n"] == 2  # one in the upper half, one in the lower
    assert within["positive"]["share"]["value"] == pytest.approx(0.5, abs=0.01)
    assert within["positive"]["area"]["value"] == 0.5
    assert within["negative"] == {"n": 0, "n_subjects": 0}  # a mask, and no evidence


def test_boxes_of_radiographs_without_the_finding_are_not_judged(samples):
    predictor = Brightest()
    boxes = {"NORMAL/0.png": [Box(0, 0, 9, 9, "")]}
    found = evidence_of(predictor, scored_by(predictor, samples), boxes=boxes)
    assert found["boxes"] == {"n": 0, "n_subjects": 0}


# --- its parts


def test_a_peak_of_several_pixels_points_as_far_as_they_lie_inside():
    shown = np.zeros((4, 4))
    shown[0, :2] = 1
    region = np.zeros((4, 4), dtype=bool)
    region[:, 0] = True
    assert hit(shown, region) == 0.5
    assert hit(np.zeros((4, 4)), region) == 0.25


def test_a_patch_is_whole_in_its_middle_and_fades_at_its_rim():
    blend = patch(32, 8, 4, 20)
    assert blend[6:10, 22:26].min() == 1
    rim = blend[4:12, 20:28]
    assert 0 < rim[0, 0] < rim[0, 3] < 1
    np.testing.assert_array_equal(rim, rim[::-1, ::-1])
    assert blend.sum() == rim.sum()


def test_what_covers_has_the_grey_level_of_what_is_covered():
    random = np.random.default_rng(0)
    dark, light = (
        random.normal(m, s, (64, 64)).astype(np.float32) for m, s in ((0.3, 0.02), (0.6, 0.08))
    )
    found = matched(light, dark)
    assert (found.mean(), found.std()) == (
        pytest.approx(0.3, abs=0.01),
        pytest.approx(0.02, abs=0.003),
    )
    np.testing.assert_allclose(
        matched(np.full((8, 8), 0.5, np.float32), dark), dark.mean(), atol=1e-6
    )
