import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chestxray import imaging
from chestxray.dataset import read_dataset
from chestxray.errors import BundleMissingError, EmptyDatasetError
from chestxray.inference import Predictor, read_bundle
from chestxray.inference.probability import calibrated_logit, sigmoid
from chestxray.learning.recalibration import recalibrate
from factories.bundles import write_tiny_bundle
from factories.datasets import write_dataset, write_files

BLOCKED = ("torch", "torchvision", "albumentations", "cv2", "onnx", "safetensors", "matplotlib")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A site's own radiographs, and one file that is none."""
    folder = write_dataset(tmp_path_factory.mktemp("site") / "lighthouse", 30)
    return write_files(folder, {"NORMAL/notes.txt": b"no radiograph"})


@pytest.fixture(scope="module")
def recalibrated(bundle, site, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("recalibrated") / "bundle"
    identity = recalibrate(site, bundle, out, threads=1)
    assert identity == read_bundle(out).sha256
    return out


def test_recalibration_leaves_the_model_as_it_is_and_gives_the_bundle_another_identity(
    bundle, recalibrated
):
    before, after = read_bundle(bundle), read_bundle(recalibrated)
    assert after.model == before.model
    assert after.sha256 != before.sha256


def test_recalibration_changes_nothing_but_what_was_fitted(bundle, recalibrated):
    before = read_bundle(bundle).manifest.model_dump()
    after = read_bundle(recalibrated).manifest.model_dump()
    changed = {key for key in before if before[key] != after[key]}
    assert changed == {"name", "calibration", "operating_points", "uncertainty", "metrics"}
    assert after["metrics"] == []


def test_the_calibration_is_fitted_to_the_sites_readable_radiographs(bundle, recalibrated, site):
    calibration = read_bundle(recalibrated).manifest.calibration
    assert calibration.n == 60
    assert calibration.prevalence == 0.5
    assert "lighthouse" in calibration.fitted_on
    samples = [s for s in read_dataset(site) if s.file.suffix == ".png"]
    predictions = Predictor.load(bundle).predict([imaging.read_file(s.file) for s in samples])
    logits = np.array([p.logit for p in predictions])
    truth = np.array([s.truth == "PNEUMONIA" for s in samples])

    def loss(calibrated: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0, calibrated) - truth * calibrated))

    fitted = loss(calibrated_logit(logits, calibration))
    old = read_bundle(bundle).manifest.calibration
    assert fitted < loss(calibrated_logit(logits, old))
    assert fitted < np.log(2)  # better than to say 50 % always
    mean = sigmoid(calibrated_logit(logits, calibration)).mean()
    assert mean == pytest.approx(0.5, abs=0.02)


def test_the_margin_of_uncertainty_stays_the_same_in_logits(bundle, recalibrated):
    old, new = (read_bundle(folder).manifest for folder in (bundle, recalibrated))
    assert new.uncertainty.margin * new.calibration.temperature == pytest.approx(
        old.uncertainty.margin * old.calibration.temperature
    )


def test_a_recalibrated_bundle_answers_with_the_same_logits(bundle, recalibrated, site):
    radiographs = [imaging.read_file(s.file) for s in read_dataset(site)[:5]]
    before, after = (Predictor.load(f).predict(radiographs) for f in (bundle, recalibrated))
    assert [p.logit for p in before] == [p.logit for p in after]
    assert [p.probability for p in before] != [p.probability for p in after]


def test_recalibration_is_repeatable(bundle, recalibrated, site, tmp_path):
    assert recalibrate(site, bundle, tmp_path, threads=2) == read_bundle(recalibrated).sha256


def test_a_site_recalibrates_without_pytorch_or_albumentations(
    bundle, recalibrated, site, tmp_path
):
    out = tmp_path / "bundle"
    code = f"""
import sys
for name in {BLOCKED}:
    sys.modules[name] = None
sys.argv = ["chestxray", "calibrate", "--data", {str(site)!r}, "--bundle", {str(bundle)!r},
            "--out", {str(out)!r}]
from chestxray.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert read_bundle(out).sha256 == read_bundle(recalibrated).sha256


def test_the_name_of_the_data_set_is_known_where_it_is_the_current_folder(
    bundle, site, tmp_path, monkeypatch
):
    monkeypatch.chdir(site)
    recalibrate(Path(), bundle, tmp_path, threads=1)
    manifest = json.loads((tmp_path / "manifest.json").read_text(encoding="utf-8"))
    assert "lighthouse" in manifest["name"]
    assert "lighthouse" in manifest["calibration"]["fitted_on"]


def test_recalibration_needs_readable_radiographs_of_both_truths(bundle, site, tmp_path):
    normal = next((site / "NORMAL").glob("*.png")).read_bytes()
    data = write_files(tmp_path / "data", {"NORMAL/a.png": normal, "PNEUMONIA/b.png": b"none"})
    with pytest.raises(EmptyDatasetError, match="both truths"):
        recalibrate(data, bundle, tmp_path / "out", threads=1)
    assert not (tmp_path / "out").exists()


def test_recalibration_needs_a_bundle(site, tmp_path):
    with pytest.raises(BundleMissingError):
        recalibrate(site, tmp_path, tmp_path / "out", threads=1)
