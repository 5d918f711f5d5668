import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from chestxray import imaging
from chestxray.dataset import Sample, read_dataset
from chestxray.errors import EmptyDatasetError
from chestxray.evaluation import stress as stress_module
from chestxray.evaluation.corruptions import CORRUPTIONS, NOT_FROM_A_CLINIC
from chestxray.evaluation.evaluate import report_of, score_samples
from chestxray.evaluation.stress import n_predictions, stress
from chestxray.inference import Predictor
from factories import images
from factories.bundles import write_tiny_bundle
from factories.datasets import LABELS, radiograph_levels, write_dataset, write_files

FIGURES = ("auroc", "sensitivity", "specificity")


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """24 radiographs, and two files that cannot be read."""
    folder = write_dataset(tmp_path_factory.mktemp("stress") / "data", 12)
    whole = images.png(radiograph_levels(99, opacity=True))
    broken = {"NORMAL/text.png": b"no picture", "PNEUMONIA/torn.png": whole[: len(whole) // 2]}
    return read_dataset(write_files(folder, broken), LABELS)


@pytest.fixture(scope="module")
def readable(samples: list[Sample]) -> list[Sample]:
    return [s for s in samples if s.file.name not in {"text.png", "torn.png"}]


@pytest.fixture(scope="module")
def told() -> list[int]:
    return []


@pytest.fixture(scope="module")
def report(predictor: Predictor, samples: list[Sample], told: list[int]) -> dict:
    return stress(predictor, samples, threads=2, on_scored=told.append)


@pytest.fixture(scope="module")
def rows(report: dict) -> list[dict]:
    return [row for severities in report["corruptions"].values() for row in severities]


def test_the_report_says_of_what_it_is(report, predictor, readable):
    assert report["n"] == len(readable) == 24
    assert report["n_subjects"] == len({s.subject for s in readable})
    assert report["n_unreadable"] == 2
    assert report["operating_point"] == "balanced"
    assert report["threshold"] == predictor.manifest.operating_points["balanced"].threshold
    assert report["bundle_sha256"] == predictor.bundle_sha256


def test_the_report_is_plain_json_without_nan(report):
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_every_corruption_has_five_severities(report):
    assert list(report["corruptions"]) == list(CORRUPTIONS)
    for name, severities in report["corruptions"].items():
        assert [row["severity"] for row in severities] == [1, 2, 3, 4, 5]
        assert severities[2]["level"] == CORRUPTIONS[name].level_text(3)


def test_every_figure_has_its_interval_and_shares_are_shares(report, rows):
    for row in [report["clean"], *rows]:
        for name in FIGURES:
            figure = row[name]
            assert 0 <= figure["ci_low"] <= figure["value"] <= figure["ci_high"] <= 1
        assert 0 <= row["accepted"] <= 1
    for row in rows:
        assert 0 <= row["misread"] <= min(row["flipped"], row["accepted"]) <= 1


def test_a_change_is_a_figure_minus_the_clean_one(report, rows):
    for row in rows:
        for name in FIGURES:
            change = row[name]["value"] - report["clean"][name]["value"]
            assert row[f"{name}_change"] == pytest.approx(change)


def test_small_pictures_are_scored_clean_as_evaluate_scores_them(report, predictor, readable):
    evaluated = report_of(predictor, score_samples(predictor, readable, threads=1), "tiny", "all")
    for name in FIGURES:
        assert report["clean"][name]["value"] == pytest.approx(evaluated[name]["value"])
    assert report["clean"]["accepted"] == pytest.approx(1 - evaluated["n_refused"] / 24)


def test_a_row_is_what_the_predictor_says_of_the_corrupted_pictures(report, predictor, readable):
    black_out, any_generator = CORRUPTIONS["lungs_blacked_out"], np.random.default_rng()
    clean = [imaging.read_file(sample.file) for sample in readable]
    without_lungs = [replace(r, pixels=black_out(r.pixels, 5, any_generator)) for r in clean]
    before, after = predictor.predict(clean), predictor.predict(without_lungs)
    flipped = np.array([a.label != b.label for a, b in zip(before, after, strict=True)])
    accepted = np.array([prediction.input_check.accepted for prediction in after])
    positive = np.array([prediction.label == "PNEUMONIA" for prediction in after])
    truth = np.array([sample.truth == "PNEUMONIA" for sample in readable])
    row = report["corruptions"]["lungs_blacked_out"][4]
    assert flipped.any()
    assert row["flipped"] == pytest.approx(flipped.mean())
    assert row["accepted"] == pytest.approx(accepted.mean())
    assert row["misread"] == pytest.approx((flipped & accepted).mean())
    assert row["sensitivity"]["value"] == pytest.approx(positive[truth].mean())


def test_a_clinic_s_worst_is_the_worst_of_the_two_mildest_severities(report):
    for name in FIGURES:
        worst = report["clinic"][f"worst_{name}_change"]
        changes = [
            row[f"{name}_change"]
            for corruption, severities in report["corruptions"].items()
            if corruption not in NOT_FROM_A_CLINIC
            for row in severities[:2]
        ]
        assert worst["change"] == min(changes)
        row = report["corruptions"][worst["corruption"]][worst["severity"] - 1]
        assert row[f"{name}_change"] == worst["change"]
        assert row["level"] == worst["level"]


def test_the_same_radiograph_is_read_from_other_files(report):
    variants = report["same_radiograph"]
    assert set(variants) == {
        *("size_0.5", "size_0.75", "size_1.5", "size_2", "png_8_bit", "png_16_bit"),
        *("jpeg_95", "jpeg_85", "jpeg_75", "jpeg_60", "jpeg_40"),
    }
    for variant in variants.values():
        assert variant["n"] == 24
        assert 0 <= variant["p95"] <= 1
        assert 0 <= variant["within_0_05"] <= 1


def test_a_lossless_copy_gives_the_same_probability(report):
    for variant in ("png_8_bit", "png_16_bit"):
        assert report["same_radiograph"][variant]["p95"] < 1e-4
        assert report["same_radiograph"][variant]["within_0_05"] == 1


def test_a_worse_jpeg_moves_the_probability_further(report):
    assert report["same_radiograph"]["jpeg_95"]["p95"] < report["same_radiograph"]["jpeg_40"]["p95"]


def test_progress_counts_up_to_the_number_of_predictions(report, told, samples):
    assert told == sorted(told)
    assert len(told) == len(samples)
    assert told[-1] == n_predictions(samples) == 26 * (1 + 60 + 1 + 11)


def test_neither_threads_nor_order_change_anything(report, predictor, samples):
    assert stress(predictor, samples[::-1], threads=1) == report


def test_at_most_200_are_written_as_other_files_evenly_chosen(samples, monkeypatch):
    monkeypatch.setattr(stress_module, "SAME_RADIOGRAPH_MAX_SAMPLES", 13)
    chosen = stress_module._chosen(samples)
    assert chosen == {sample.path for sample in samples[::2]}
    assert n_predictions(samples) == 26 * 61 + 13 * 12


def test_large_pictures_are_shrunk_once_and_keep_the_ratio_of_their_sides(tmp_path, predictor):
    levels = radiograph_levels(0, opacity=False, side_px=900)[:600]
    shapes = []

    class Watching:
        manifest, bundle_sha256 = predictor.manifest, predictor.bundle_sha256
        operating_point = predictor.operating_point

        def predict(self, radiographs):
            shapes.extend(r.pixels.shape for r in radiographs)
            return predictor.predict(radiographs)

    files = {"NORMAL/a.png": images.png(levels), "PNEUMONIA/b.png": images.png(levels[::-1])}
    stress(Watching(), read_dataset(write_files(tmp_path, files), LABELS), threads=1)
    assert set(shapes[:61]) == {(299, 448)}
    assert shapes[61:66] == [(600, 900), (300, 450), (450, 675), (900, 1350), (1200, 1800)]


def test_stress_changes_no_file_of_the_data_set(predictor, tmp_path):
    folder = write_dataset(tmp_path / "data", 1)

    def digests() -> dict[Path, str]:
        files = sorted(f for f in folder.rglob("*") if f.is_file())
        return {f: hashlib.sha256(f.read_bytes()).hexdigest() for f in files}

    before = digests()
    stress(predictor, read_dataset(folder, LABELS), threads=1)
    assert digests() == before


def test_no_stress_without_readable_radiographs_of_both_truths(predictor, tmp_path):
    normal = images.png(radiograph_levels(0, opacity=False))
    folder = write_files(tmp_path, {"NORMAL/n.png": normal, "PNEUMONIA/p.png": b"nothing"})
    with pytest.raises(EmptyDatasetError, match="both truths"):
        stress(predictor, read_dataset(folder, LABELS), threads=1)
