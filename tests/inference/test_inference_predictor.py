"""The predictor says what the network says, calibrated, whoever asks and in whatever company."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from chestxray.errors import UnknownOperatingPointError
from chestxray.imaging import Radiograph
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import Predictor
from chestxray.inference.probability import logit_of, sigmoid
from factories.bundles import write_tiny_bundle


def radiograph(pixels: np.ndarray) -> Radiograph:
    height_px, width_px = pixels.shape
    return Radiograph(pixels.astype(np.float32), "PNG", width_px, height_px)


RADIOGRAPHS = [radiograph(synthetic_radiograph(seed, 80)) for seed in range(40)]
NOISE = radiograph(np.random.default_rng(0).random((80, 80)))


def test_the_logit_is_the_mean_of_the_evidence_and_a_constant(predictor: Predictor) -> None:
    predictions = predictor.predict(RADIOGRAPHS)
    bias = [prediction.logit - prediction.evidence.mean() for prediction in predictions]
    assert np.ptp(bias) < 1e-4


def test_a_batch_answers_as_each_radiograph_alone(predictor: Predictor) -> None:
    together = predictor.predict(RADIOGRAPHS)
    assert {prediction.label for prediction in together} == {"NORMAL", "PNEUMONIA"}
    for one, batched in zip(RADIOGRAPHS, together, strict=True):
        (alone,) = predictor.predict([one])
        assert batched.label == alone.label
        assert batched.logit == pytest.approx(alone.logit, abs=1e-4)
        assert batched.input_check.score == pytest.approx(alone.input_check.score, abs=1e-4)
        np.testing.assert_allclose(batched.evidence, alone.evidence, atol=1e-3)


def test_no_radiographs_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict([]) == []


def test_many_threads_get_the_answers_that_one_gets(predictor: Predictor) -> None:
    def logit_and_evidence(one: Radiograph) -> tuple[float, bytes]:
        (prediction,) = predictor.predict([one])
        return prediction.logit, prediction.evidence.tobytes()

    serial = [logit_and_evidence(one) for one in RADIOGRAPHS]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(logit_and_evidence, RADIOGRAPHS)) == serial


def test_the_probability_is_the_calibrated_logits(predictor: Predictor) -> None:
    calibration = predictor.manifest.calibration
    for prediction in predictor.predict(RADIOGRAPHS):
        calibrated = prediction.logit / calibration.temperature + calibration.bias
        assert prediction.probability == pytest.approx(1 / (1 + np.exp(-calibrated)))


def test_pneumonia_begins_at_the_threshold_itself(predictor: Predictor, tmp_path: Path) -> None:
    (before,) = predictor.predict(RADIOGRAPHS[:1])
    point = {"threshold": before.probability, "rule": ""}
    write_tiny_bundle(tmp_path, operating_points={"exact": point}, default_operating_point="exact")
    (after,) = Predictor.load(tmp_path).predict(RADIOGRAPHS[:1])
    assert (after.label, after.operating_point, after.uncertain) == ("PNEUMONIA", "exact", True)


def test_the_named_operating_point_decides(predictor: Predictor) -> None:
    for name, point in predictor.manifest.operating_points.items():
        for prediction in predictor.predict(RADIOGRAPHS, name):
            assert (prediction.operating_point, prediction.threshold) == (name, point.threshold)
            assert (prediction.label == "PNEUMONIA") == (prediction.probability >= point.threshold)


def test_an_operating_point_that_the_bundle_lacks_is_an_error(predictor: Predictor) -> None:
    with pytest.raises(UnknownOperatingPointError, match="screening, balanced, rule_in"):
        predictor.predict(RADIOGRAPHS[:1], "guess")


@pytest.mark.parametrize(("threshold", "label"), [(0.0, "PNEUMONIA"), (1.0, "NORMAL")])
def test_a_threshold_at_either_end_decides_all_and_is_never_uncertain(
    tmp_path: Path, threshold: float, label: str
) -> None:
    point = {"threshold": threshold, "rule": ""}
    write_tiny_bundle(tmp_path, operating_points={"end": point}, default_operating_point="end")
    predictions = Predictor.load(tmp_path).predict(RADIOGRAPHS)
    assert {prediction.label for prediction in predictions} == {label}
    assert not any(prediction.uncertain for prediction in predictions)


def test_an_answer_is_uncertain_exactly_within_the_margin(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, uncertainty={"margin": 0.3, "rule": ""})
    predictions = Predictor.load(tmp_path).predict(RADIOGRAPHS)
    distances = [abs(float(logit_of(one.probability))) for one in predictions]
    assert [one.uncertain for one in predictions] == [distance < 0.3 for distance in distances]
    assert len({one.uncertain for one in predictions}) == 2


def test_what_is_no_chest_is_answered_but_not_accepted(predictor: Predictor) -> None:
    *chests, noise = predictor.predict([*RADIOGRAPHS, NOISE])
    assert all(chest.input_check.accepted for chest in chests)
    assert not noise.input_check.accepted
    assert 0 <= noise.input_check.score < predictor.manifest.input_check.threshold
    assert 0 <= noise.probability <= 1


def test_sigmoid_neither_overflows_nor_leaves_its_range() -> None:
    logits = np.array([-1e9, -800.0, -3.0, 0.0, 3.0, 800.0, 1e9])
    probabilities = sigmoid(logits)
    assert probabilities.tolist() == sorted(probabilities)
    assert probabilities[[0, 3, -1]].tolist() == [0, 0.5, 1]
    np.testing.assert_allclose(logit_of(probabilities[2:5]), logits[2:5])
