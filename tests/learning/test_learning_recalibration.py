import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from chestxray import imaging
from chestxray.dataset import read_dataset
from chestxray.errors import BundleMissingError, ConfigError, EmptyDatasetError
from chestxray.inference import Predictor, read_bundle
from chestxray.inference.probability import calibrated_logit, sigmoid
from chestxray.learning.learning_curve import RULE, better_from
from chestxray.learning.recalibration import recalibrate
from factories.bundles import tiny_manifest, tiny_model, write_tiny_bundle
from factories.command_line import chestxray
from factories.datasets import LABELS, write_dataset, write_files

BLOCKED = (
    *("torch", "torchvision", "onnx", "safetensors", "matplotlib"),
    "sklearn",
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"), validated=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A site's own radiographs, and one file that is none."""
    folder = write_dataset(tmp_path_factory.mktemp("site") / "lighthouse", 30)
    return write_files(folder, {"NORMAL/notes.txt": b"no radiograph"})


@pytest.fixture(scope="module")
def recalibrated(bundle, site, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("recalibrated") / "bundle"
    told: list[str] = []
    made = recalibrate(site, bundle, out, threads=1, say=told.append)
    assert told[-1].startswith("files that cannot be read, left out: 1 (NORMAL/notes.txt: ")
    assert made.bundle_sha256 == read_bundle(out).sha256
    assert made.manifest == read_bundle(out).manifest
    return out


def test_recalibration_leaves_the_model_as_it_is_and_gives_the_bundle_another_identity(
    bundle, recalibrated
):
    before, after = read_bundle(bundle), read_bundle(recalibrated)
    assert after.model == before.model
    assert after.sha256 != before.sha256


def test_recalibration_carries_over_that_the_evidence_is_validated_and_on_what(
    bundle, recalibrated
):
    evidence = read_bundle(recalibrated).manifest.evidence
    assert evidence.validated
    assert evidence == read_bundle(bundle).manifest.evidence


def test_recalibration_changes_nothing_but_what_was_fitted(bundle, recalibrated):
    before = read_bundle(bundle).manifest.model_dump()
    after = read_bundle(recalibrated).manifest.model_dump()
    changed = {key for key in before if before[key] != after[key]}
    fitted = {"name", "calibration", "operating_points", "uncertainty", "metrics"}
    assert changed == fitted | {"training"}
    assert after["metrics"] == []
    assert set(after["training"]) - set(before["training"]) == {"recalibration"}


def test_the_manifest_says_from_how_many_radiographs_on_recalibrating_was_better(
    bundle, recalibrated
):
    told = read_bundle(recalibrated).manifest.training["recalibration"]
    assert told["from_bundle_sha256"] == read_bundle(bundle).sha256
    assert (told["site"], told["n"]) == ("lighthouse", 60)
    assert [step["n"] for step in told["curve"]] == [25]
    assert 2 * told["curve"][0]["n_subjects"] <= told["n_subjects"] < told["n"]
    assert told["better_from"] == better_from(told["curve"])
    assert told["rule"] == RULE


def test_several_folders_are_one_site(bundle, tmp_path):
    wards = [write_dataset(tmp_path / f"ward-{seed}", 4, first_seed=seed) for seed in (0, 100)]
    made = recalibrate(wards, bundle, tmp_path / "out", threads=1)
    assert made.n == 16
    assert made.manifest.training["recalibration"]["site"] == "ward-0 + ward-100"


def test_copies_of_one_file_under_two_subjects_are_never_parted(bundle, site, tmp_path):
    pictures = sorted((site / "NORMAL").glob("*.png"))[:1]
    pictures += sorted((site / "PNEUMONIA").glob("*.png"))[:1]
    files = {
        f"{picture.parent.name}/{name}.png": picture.read_bytes()
        for picture in pictures
        for name in "abcdefghijklmnopqrstuvwxyzäöü"
    }
    data = write_files(tmp_path / "data", files)
    made = recalibrate(data, bundle, tmp_path / "out", threads=1)
    assert made.n == 58
    assert made.curve == []  # two pictures, one of each truth: no draw has both on a side


def test_the_calibration_is_fitted_to_the_sites_readable_radiographs(bundle, recalibrated, site):
    calibration = read_bundle(recalibrated).manifest.calibration
    assert calibration.n == 60
    assert calibration.prevalence == 0.5
    assert "lighthouse" in calibration.fitted_on
    samples = [s for s in read_dataset(site, LABELS) if s.file.suffix == ".png"]
    predictions = Predictor.load(bundle).predict([imaging.read_file(s.file) for s in samples])
    logits = np.array([p.logit for p in predictions])
    truth = np.array([s.truth == "PNEUMONIA" for s in samples])

    def loss(calibrated: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0, calibrated) - truth * calibrated))

    fitted = loss(calibrated_logit(logits, calibration))
    old = read_bundle(bundle).manifest.calibration
    assert fitted < loss(calibrated_logit(logits, old))
    mean = sigmoid(calibrated_logit(logits, calibration)).mean()
    assert mean == pytest.approx(0.5, abs=0.05)


def test_the_margin_of_uncertainty_stays_the_same_in_logits(bundle, recalibrated):
    old, new = (read_bundle(folder).manifest for folder in (bundle, recalibrated))
    assert new.uncertainty.margin * new.calibration.temperature == pytest.approx(
        old.uncertainty.margin * old.calibration.temperature
    )


def test_a_recalibrated_bundle_answers_with_the_same_logits(bundle, recalibrated, site):
    radiographs = [imaging.read_file(s.file) for s in read_dataset(site, LABELS)[:5]]
    before, after = (Predictor.load(f).predict(radiographs) for f in (bundle, recalibrated))
    assert [p.logit for p in before] == [p.logit for p in after]
    assert [p.probability for p in before] != [p.probability for p in after]


def test_recalibration_is_repeatable(bundle, recalibrated, site, tmp_path):
    again = recalibrate(site, bundle, tmp_path, threads=2)
    assert again.bundle_sha256 == read_bundle(recalibrated).sha256


def test_a_site_recalibrates_without_pytorch(bundle, recalibrated, site, tmp_path):
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


def calibrate(data: Path, bundle: Path, out: Path) -> tuple[str, str]:
    """``chestxray calibrate`` in this process: what it says on stdout and on stderr."""
    answer = chestxray("calibrate", "--data", data, "--bundle", bundle, "--out", out)
    assert answer.code == 0
    return answer.out, answer.err


def test_calibrate_prints_the_curve_and_from_when_it_pays(site, tmp_path):
    # 3 off in the calibrated logit: every radiograph is PNEUMONIA.
    manifest = tiny_manifest(tiny_model())
    far_off = manifest.calibration.model_copy(update={"bias": manifest.calibration.bias + 3})
    bundle = write_tiny_bundle(tmp_path / "old", calibration=far_off.model_dump())
    out, err = calibrate(site, bundle, tmp_path / "new")
    step = read_bundle(tmp_path / "new").manifest.training["recalibration"]["curve"][0]
    row = next(line for line in out.splitlines() if line.split()[0] == "25").split()
    assert row == [
        "25",
        *(f"{step['log_loss']['old']:.3f}", f"{step['log_loss']['new']:.3f}"),
        f"{step['log_loss']['better']:.0%}",
        *(f"{step['youden']['old']:.3f}", f"{step['youden']['new']:.3f}"),
        f"{step['youden']['better']:.0%}",
    ]
    assert "recalibrating pays for probabilities from about 25 radiographs on" in out
    assert "you gave 60" in out
    assert "probabilities" not in err


def test_calibrate_warns_when_it_is_not_shown_to_pay_and_still_writes(bundle, tmp_path):
    few = write_dataset(tmp_path / "few", 10)
    out, err = calibrate(few, bundle, tmp_path / "new")
    assert "pays" not in out
    assert "not shown to pay for probabilities and decisions with the 20 radiographs given" in err
    assert err.count("\n") == 1
    assert read_bundle(tmp_path / "new").manifest.training["recalibration"]["curve"] == []


def test_recalibration_needs_a_bundle(site, tmp_path):
    with pytest.raises(BundleMissingError):
        recalibrate(site, tmp_path, tmp_path / "out", threads=1)


def test_the_bundle_that_is_calibrated_is_not_overwritten(bundle: Path, site: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match="choose another folder"):
        recalibrate(site, bundle, bundle, threads=1)
    assert (bundle / "manifest.json").read_bytes() == before
