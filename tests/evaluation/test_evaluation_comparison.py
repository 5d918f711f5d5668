import numpy as np
import pytest

from chestxray.dataset import read_dataset
from chestxray.errors import ConfigError
from chestxray.evaluation.comparison import check_finding, comparison_of
from chestxray.evaluation.evaluate import answered_of, report_of, score_samples
from chestxray.evaluation.metrics import FIGURES
from chestxray.inference import Predictor
from factories.bundles import FINDING, OTHER_FINDING, tiny_manifest, tiny_model, write_tiny_bundle
from factories.datasets import LABELS, write_dataset


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """(predictor, what it scored) of two bundles that agree in order but not in probability."""
    folder = tmp_path_factory.mktemp("compare")
    samples = read_dataset(write_dataset(folder / "data", 15), LABELS)
    calibration = tiny_manifest(tiny_model()).calibration
    predictors = [
        Predictor.load(write_tiny_bundle(folder / "one", name="one")),
        Predictor.load(
            write_tiny_bundle(
                folder / "two",
                name="two",
                calibration=calibration.model_copy(update={"temperature": 4.0}),
                operating_points={"usual": {"threshold": 0.45, "rule": "chosen for tests"}},
                default_operating_point="usual",
            )
        ),
    ]
    return [(p, score_samples(p, samples, threads=2)) for p in predictors]


def test_a_bundle_does_not_differ_from_itself_in_any_draw(scored):
    found = comparison_of(*scored[0], *scored[0])
    for name in FIGURES:
        assert found["differences"][name] == {"value": 0.0, "ci_low": 0.0, "ci_high": 0.0}


def test_the_other_bundle_is_judged_at_its_own_default_operating_point(scored):
    found = comparison_of(*scored[0], *scored[1])
    other, by_other = scored[1]
    alone = report_of(other, by_other, "tiny", "all")
    assert (found["name"], found["bundle_sha256"]) == ("two", other.bundle_sha256)
    assert (found["operating_point"], found["threshold"]) == ("usual", 0.45)
    assert found["figures"] == {name: alone[name] for name in FIGURES}


def test_a_difference_is_the_bundle_minus_the_other(scored):
    found = comparison_of(*scored[0], *scored[1])
    ours = report_of(*scored[0], "tiny", "all")
    for name in FIGURES:
        expected = ours[name]["value"] - found["figures"][name]["value"]
        assert found["differences"][name]["value"] == pytest.approx(expected)


def test_the_interval_of_a_paired_difference_is_narrower_than_of_an_unpaired_one(scored):
    (one, by_one), (two, by_two) = scored
    paired = comparison_of(one, by_one, two, by_two)["differences"]["brier"]
    first = answered_of(by_one).resampled(one.operating_point()[1])["brier"].draws
    second = answered_of(by_two).resampled(two.operating_point()[1])["brier"].draws
    shuffled = np.random.default_rng(0).permutation(second)
    low, high = np.percentile(first - shuffled, [2.5, 97.5])
    assert 0 < paired["ci_high"] - paired["ci_low"] < (high - low) / 2


@pytest.mark.parametrize("other", [OTHER_FINDING, FINDING | {"code": OTHER_FINDING["code"]}])
def test_a_bundle_of_other_labels_or_of_another_code_is_of_another_finding(other):
    ours, theirs = tiny_manifest(tiny_model()), tiny_manifest(tiny_model(), finding=other)
    check_finding(ours, ours.finding)
    with pytest.raises(ConfigError, match="another finding") as caught:
        check_finding(theirs, ours.finding)
    assert "(SCT 60046008), not NORMAL/PNEUMONIA (SCT 233604007)" in str(caught.value)
