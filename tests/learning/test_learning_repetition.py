import json

import numpy as np
import pytest

from chestxray.dataset import check_disjoint
from chestxray.evaluation.metrics import FIGURES
from chestxray.inference import Predictor
from chestxray.learning.repetition import cross_validate, repeat
from chestxray.learning.training import read_run

N_FOLDS = 2


def silent(message: str) -> None:
    pass


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config(side_px=32, stages=[{"epochs": 6, "side_px": 32}])


@pytest.fixture(scope="module")
def folder(config, samples, tmp_path_factory):
    out = tmp_path_factory.mktemp("folds")
    others = {"elsewhere": samples[:20] + samples[-20:]}
    result = cross_validate(config, samples, out, N_FOLDS, external=others, say=silent)
    assert result == json.loads((out / "cross_validation.json").read_text(encoding="utf-8"))
    return out


@pytest.fixture(scope="module")
def result(folder):
    return json.loads((folder / "cross_validation.json").read_text(encoding="utf-8"))


def test_every_radiograph_is_held_out_once_and_no_subject_is_on_both_sides(folder, samples):
    runs = [read_run(folder / f"fold-{k}", samples) for k in range(1, N_FOLDS + 1)]
    held = [s.path for run in runs for s in run.split.heldout]
    assert sorted(held) == sorted(s.path for s in samples)
    for run in runs:
        check_disjoint(run.split.train, run.split.heldout)


def test_every_fold_is_judged_through_its_own_bundle(folder, result):
    assert [fold["fold"] for fold in result["folds"]] == [1, 2]
    for fold in result["folds"]:
        manifest = Predictor.load(folder / f"fold-{fold['fold']}" / "bundle").manifest
        entry = manifest.metrics[0]
        assert (fold["n"], fold["n_subjects"]) == (entry["n"], entry["n_subjects"])
        balanced = entry["operating_points"]["balanced"]
        assert {name: fold[name] for name in balanced} == balanced


def test_the_summary_is_mean_and_standard_deviation_over_the_folds(result):
    assert result["config"]["name"] == "tiny"
    assert set(result["summary"]) == set(FIGURES)
    for name, figure in result["summary"].items():
        values = [fold[name]["value"] for fold in result["folds"]]
        assert figure["mean"] == pytest.approx(np.mean(values))
        assert figure["std"] == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))


def test_every_fold_is_judged_on_the_external_data_too(folder, result):
    for fold in result["folds"]:
        manifest = Predictor.load(folder / f"fold-{fold['fold']}" / "bundle").manifest
        elsewhere = fold["external"]["elsewhere"]
        assert elsewhere["n"] == manifest.metrics[1]["n"] == 40
    values = [fold["external"]["elsewhere"]["auroc"]["value"] for fold in result["folds"]]
    assert result["external"]["elsewhere"]["auroc"]["mean"] == pytest.approx(np.mean(values))


def test_seeds_repeat_the_recipe_with_other_splits_and_weights(config, samples, tmp_path):
    quick = config.model_copy(update={"seed": 3})
    result = repeat(quick, samples, tmp_path, 2, say=silent)
    assert result == json.loads((tmp_path / "seeds.json").read_text(encoding="utf-8"))
    assert [run["seed"] for run in result["seeds"]] == [3, 4]
    runs = [read_run(tmp_path / f"seed-{seed}", samples) for seed in (3, 4)]
    assert [run.config.seed for run in runs] == [3, 4]
    assert runs[0].split != runs[1].split
    values = [run["auroc"]["value"] for run in result["seeds"]]
    assert result["summary"]["auroc"]["mean"] == pytest.approx(np.mean(values))
