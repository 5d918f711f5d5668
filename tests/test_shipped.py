"""What ships: the bundle, its figures, and the examples to try it with."""

from pathlib import Path

import numpy as np
import pytest

import chestxray
from chestxray import imaging
from chestxray.dataset import read_dataset
from chestxray.evaluation.evaluate import report_of, score_samples
from chestxray.inference import BUNDLED, Prediction, Predictor
from chestxray.inference.bundle import MODEL_FILE

EXAMPLES = sorted((Path(chestxray.__file__).parent / "examples").glob("*.jpeg"))


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return Predictor.load(threads=2)


def test_the_shipped_bundle_is_an_int8_resnet18_of_about_11_mb(predictor: Predictor) -> None:
    manifest = predictor.manifest
    assert manifest.precision == "int8"
    assert manifest.training["config"]["network"] == "resnet18_os16"
    assert manifest.preprocessing.side_px == 160
    assert manifest.evidence.shape == (10, 10)
    assert manifest.evidence.validated
    assert manifest.population.age_years == ((1, 5), (18, 90))
    assert 10e6 < (BUNDLED / MODEL_FILE).stat().st_size < 12e6


def test_the_shipped_bundles_operating_points_rise_from_screening_to_rule_in(
    predictor: Predictor,
) -> None:
    points = predictor.manifest.operating_points
    thresholds = [points[name].threshold for name in ("screening", "balanced", "rule_in")]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] > 0
    assert thresholds[-1] < 1


def test_there_are_examples_of_both_truths() -> None:
    assert {example.name.split("-")[0] for example in EXAMPLES} == {"normal", "pneumonia"}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda e: e.name)
def test_an_example_is_accepted_and_labelled_as_what_it_shows(
    predictor: Predictor, example: Path
) -> None:
    (prediction,) = predictor.predict([imaging.read_file(example)])
    assert prediction.input_check.accepted
    assert prediction.label == example.name.split("-")[0].upper()
    assert prediction.logit == pytest.approx(_pooled(prediction) + _bias(predictor), abs=1e-3)


def _pooled(prediction: Prediction) -> float:
    return float(np.log(np.exp(prediction.evidence).mean()))


def _bias(predictor: Predictor) -> float:
    """The constant of logit = log(mean(exp(evidence))) + bias, from a picture of nothing."""
    nothing = imaging.Radiograph(np.full((224, 224), 0.5, np.float32), "PNG", 224, 224)
    (prediction,) = predictor.predict([nothing])
    return float(prediction.logit) - _pooled(prediction)


def test_the_manifests_figures_of_the_adults_can_be_measured_again(
    predictor: Predictor, shared_data: Path
) -> None:
    samples = read_dataset(shared_data / "adults", predictor.manifest.finding.labels)
    scored = score_samples(predictor, samples, threads=2)
    report = report_of(predictor, scored, "adults", "all")
    (noted,) = [entry for entry in predictor.manifest.metrics if entry["dataset"] == "adults"]
    assert report["n"] == noted["n"]
    assert report["n_subjects"] == noted["n_subjects"]
    figure = noted["operating_points"]["balanced"]["auroc"]["value"]
    assert report["auroc"]["value"] == pytest.approx(figure, abs=0.01)
