"""A bundle is used whole or not at all, and says in one line why not."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest

from chestxray.errors import BundleDamagedError, BundleMissingError, BundleVersionError
from chestxray.inference import Predictor, read_bundle, write_bundle
from factories.bundles import tiny_manifest, tiny_model, write_tiny_bundle


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


def change_manifest(bundle: Path, **changes: object) -> None:
    path = bundle / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(bundle: Path, error: type[Exception]) -> str:
    with pytest.raises(error) as caught:
        Predictor.load(bundle)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_bundle_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    model = tiny_model()
    manifest = tiny_manifest(model)
    sha256 = write_bundle(tmp_path, manifest, model)
    bundle = read_bundle(tmp_path)
    assert (bundle.manifest, bundle.model, bundle.sha256) == (manifest, model, sha256)


def test_the_identity_is_another_when_any_fact_of_the_manifest_is_another(bundle: Path) -> None:
    before = read_bundle(bundle).sha256
    change_manifest(bundle, name="another")
    assert read_bundle(bundle).sha256 != before


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_bundle_without_one_of_its_files_is_missing(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    assert str(bundle) in refusal(bundle, BundleMissingError)


def test_a_folder_that_does_not_exist_holds_no_bundle(tmp_path: Path) -> None:
    refusal(tmp_path / "nowhere", BundleMissingError)


def test_a_bundle_of_a_later_format_is_refused_for_its_version(bundle: Path) -> None:
    change_manifest(bundle, format=2, invented_later=True)
    assert "format 2" in refusal(bundle, BundleVersionError)


def test_another_models_weights_under_this_manifest_are_refused(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes(tiny_model(seed=1))
    refusal(bundle, BundleDamagedError)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b"\xff\xfe", b'{"format": 1}'])
def test_a_manifest_that_is_none_is_damage(bundle: Path, content: bytes) -> None:
    (bundle / "manifest.json").write_bytes(content)
    refusal(bundle, BundleDamagedError)


@pytest.mark.parametrize(
    "changes",
    [
        {"default_operating_point": "unheard_of"},
        {"calibration": {"temperature": -1}},
        {"unknown_fact": 1},
        {"reference_answers": [{"seed": 0, "logit": float("nan")}]},
        {
            "operating_points": {
                "screening": {"threshold": 0.9, "rule": ""},
                "balanced": {"threshold": 0.5, "rule": ""},
            }
        },
    ],
)
def test_a_manifest_with_facts_that_cannot_be_is_damage(bundle: Path, changes: dict) -> None:
    change_manifest(bundle, **changes)
    refusal(bundle, BundleDamagedError)


@pytest.mark.parametrize("part", ["mean", "std", "variances", "components"])
def test_input_check_statistics_of_unequal_length_are_damage(bundle: Path, part: str) -> None:
    check = json.loads((bundle / "manifest.json").read_text())["input_check"]
    change_manifest(bundle, input_check=check | {part: check[part][:-1] or [[1.0]]})
    if part == "components":
        assert "variance" in refusal(bundle, BundleDamagedError)
    else:
        refusal(bundle, BundleDamagedError)


def test_a_model_that_is_no_onnx_is_damage(tmp_path: Path) -> None:
    model = b"not a graph"
    write_bundle(tmp_path, tiny_manifest(tiny_model(), model_sha256=sha256_of(model)), model)
    assert "does not run" in refusal(tmp_path, BundleDamagedError)


def test_a_model_for_another_input_size_is_damage(tmp_path: Path) -> None:
    other = tiny_model(side_px=96)
    write_bundle(tmp_path, tiny_manifest(tiny_model(), model_sha256=sha256_of(other)), other)
    assert "inputs" in refusal(tmp_path, BundleDamagedError)


def test_a_model_with_other_evidence_than_the_manifest_says_is_damage(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, evidence={"shape": [7, 7], "scale": 1})
    assert "shapes" in refusal(tmp_path, BundleDamagedError)


def test_a_reference_answer_that_this_machine_computes_otherwise_is_damage(tmp_path: Path) -> None:
    write_tiny_bundle(tmp_path, reference_answers=[{"seed": 7, "logit": 40.0}])
    assert "reference input 7" in refusal(tmp_path, BundleDamagedError)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
