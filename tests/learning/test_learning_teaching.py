import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from chestxray.dataset import Split, split_heldout
from chestxray.errors import (
    BundleDamagedError,
    BundleMissingError,
    ConfigError,
    LeakError,
    RunMismatchError,
)
from chestxray.imaging import Radiograph
from chestxray.inference import Finding, Predictor, read_bundle
from chestxray.learning.augmentation import Batch
from chestxray.learning.inputs import data_sha256, decode, targets_of
from chestxray.learning.learner import Learner
from chestxray.learning.teaching import read_teachers, require_unseen
from chestxray.learning.training import network_logits, train
from factories.bundles import FINDING as TINY_FINDING
from factories.bundles import OTHER_FINDING, write_tiny_bundle
from factories.command_line import chestxray
from factories.training_pictures import GENTLE_TOML

FINDING = Finding.model_validate(TINY_FINDING)
SHORT = {"stages": [{"epochs": 2, "side_px": 32}], "side_px": 32, "batch_size": 8, "heldout": 0.3}


class KilledError(Exception):
    """Stands for the signal that ends a run."""


def silent(message: str) -> None:
    pass


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("teacher") / "bundle")


@pytest.fixture(scope="module")
def another(tmp_path_factory) -> Path:
    """Of another opinion, and another size."""
    return write_tiny_bundle(tmp_path_factory.mktemp("another") / "bundle", side_px=96, seed=5)


def trained_on(split: Split, **told: object) -> dict:
    """What the manifest of a bundle that was trained on ``split`` says of it."""
    facts = {"n_train": len(split.train), "n_heldout": len(split.heldout)}
    return facts | {"data_sha256": data_sha256([*split.train, *split.heldout])} | told


# The targets.


@pytest.fixture
def shown(monkeypatch) -> list[tuple[Batch, torch.Tensor]]:
    """All batches that a learner is given, and their targets; it learns nothing."""
    given: list[tuple[Batch, torch.Tensor]] = []

    def step(
        learner: Learner, batch: Batch, targets: torch.Tensor, epoch: int, step: int
    ) -> torch.Tensor:
        given.append((batch, targets))
        return torch.zeros(())

    monkeypatch.setattr(Learner, "step", step)
    return given


def test_teachers_judge_the_very_pictures_that_the_network_is_shown(
    teacher, another, few_samples, tiny_config, tmp_path, shown
):
    config = tiny_config(
        **SHORT, teacher=[str(teacher), str(another)], teacher_weight=0.25, label_smoothing=0.2
    )
    train(config, few_samples, tmp_path, say=silent)
    predictors = [Predictor.load(folder) for folder in (teacher, another)]
    taught = set()
    for batch, targets in shown:
        pictures = [Radiograph(pixels, "PNG", 32, 32) for pixels in batch.pixels[:, 0].numpy()]
        told = np.mean([[a.probability for a in p.predict(pictures)] for p in predictors], axis=0)
        smoothed = np.where(batch.targets == 1, 0.9, 0.1)
        assert targets.dtype == torch.float32
        np.testing.assert_allclose(targets, 0.75 * smoothed + 0.25 * told, atol=1e-6)
        taught |= {round(float(probability), 6) for probability in told}
    # Another picture in every epoch, and another answer.
    assert len(taught) == sum(len(targets) for _, targets in shown) == 32


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_weight_is_the_share_of_the_teachers(
    teacher, few_samples, tiny_config, tmp_path, shown, weight
):
    config = tiny_config(
        **SHORT, teacher=[str(teacher)], teacher_weight=weight, label_smoothing=0.2
    )
    train(config, few_samples, tmp_path, say=silent)
    teachers = read_teachers(config.teacher, config.finding)
    for batch, targets in shown:
        truth = torch.where(batch.targets == 1, 0.9, 0.1)
        expected = teachers.probability(batch.pixels) if weight else truth
        torch.testing.assert_close(targets, expected)


def test_without_teachers_the_target_is_the_smoothed_truth(
    few_samples, tiny_config, tmp_path, shown
):
    train(tiny_config(**SHORT, label_smoothing=0.2), few_samples, tmp_path, say=silent)
    for batch, targets in shown:
        torch.testing.assert_close(targets, torch.where(batch.targets == 1, 0.9, 0.1))


# Whole runs.


def test_a_run_writes_down_who_taught_it_and_judges_by_the_truth_alone(
    teacher, few_samples, tiny_config, tmp_path
):
    config = tiny_config(**SHORT, teacher=[str(teacher)], teacher_weight=1.0)
    run = train(config, few_samples, tmp_path, say=silent)
    sha256 = read_bundle(teacher).sha256
    assert run.teachers == (sha256,)
    told = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    assert told["teachers"] == [sha256]
    assert told["config"]["teacher"] == [str(teacher)]
    heldout = decode(run.split.heldout, config)
    logits = torch.from_numpy(network_logits(run.network, heldout, config, 32))
    truths = torch.from_numpy(targets_of(run.split.heldout)).double()
    loss = functional.binary_cross_entropy_with_logits(logits, truths)
    assert run.history[-1]["heldout_loss"] == pytest.approx(float(loss), rel=1e-5)
    plain = train(tiny_config(**SHORT), few_samples, tmp_path / "plain", say=silent)
    assert plain.history[0]["train_loss"] != run.history[0]["train_loss"]


def test_the_command_line_distils_a_bundle_of_the_same_split(exported, samples, tmp_path):
    data = samples[0].file.parents[1]
    recipe = tmp_path / "pupil.toml"
    recipe.write_text(
        f'name = "pupil"\nteacher = ["{exported.folder}"]\nside_px = 32\nheldout = 0.5\n'
        'batch_size = 16\nlearning_rate = 1e-3\nema_decay = 0.8\nprecision = "fp32"\n'
        f"threads = 1\n{GENTLE_TOML}[[stages]]\nepochs = 4\nside_px = 32\n",
        encoding="utf-8",
    )
    answer = chestxray("train", recipe, "--data", data, "--out", tmp_path / "run")
    assert answer.code == 0
    assert "pupil, int8" in answer.out
    training = Predictor.load(tmp_path / "run" / "bundle").manifest.training
    assert training["config"]["teacher"] == [str(exported.folder)]
    assert training["teachers"] == [read_bundle(exported.folder).sha256]


def test_a_changed_teacher_is_refused_on_resume(few_samples, tiny_config, tmp_path):
    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("epoch 2/"):
            raise KilledError

    folder, out = tmp_path / "teacher", tmp_path / "run"
    write_tiny_bundle(folder)
    config = tiny_config(**SHORT, teacher=[str(folder)])
    with pytest.raises(KilledError):
        train(config, few_samples, out, progress=kill, say=silent)
    write_tiny_bundle(folder, seed=5)
    with pytest.raises(RunMismatchError, match="other teachers"):
        train(config, few_samples, out, say=silent)
    write_tiny_bundle(folder)
    assert len(train(config, few_samples, out, say=silent).history) == 2


@pytest.mark.parametrize("damage", ["missing", "model", "answers"])
def test_a_teacher_that_cannot_be_read_stops_the_run_before_it_writes(
    few_samples, tiny_config, tmp_path, damage
):
    folder = tmp_path / "teacher"
    if damage != "missing":
        answers = {"reference_answers": [{"seed": 0, "logit": 99.0}]} if damage == "answers" else {}
        write_tiny_bundle(folder, **answers)
    if damage == "model":
        (folder / "model.onnx").write_bytes(b"other")
    error = BundleMissingError if damage == "missing" else BundleDamagedError
    config = tiny_config(**SHORT, teacher=[str(folder)])
    with pytest.raises(error):
        train(config, few_samples, tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_another_finding_stops_the_run_before_it_writes(
    few_samples, tiny_config, tmp_path
):
    folder = write_tiny_bundle(tmp_path / "teacher", finding=OTHER_FINDING)
    config = tiny_config(**SHORT, teacher=[str(folder)])
    with pytest.raises(ConfigError, match="another finding: DRY/EFFUSION"):
        train(config, few_samples, tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()


# Leaks.


def test_a_teacher_that_saw_what_is_held_out_now_is_refused(few_samples, tiny_config, tmp_path):
    told = trained_on(split_heldout(few_samples, 0.3, seed=9), config={"heldout": 0.3, "seed": 9})
    folder = write_tiny_bundle(tmp_path / "teacher", training=told)
    config = tiny_config(**SHORT, teacher=[str(folder)])
    with pytest.raises(LeakError, match="both sides"):
        train(config, few_samples, tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()


def test_a_teacher_of_the_same_data_must_say_what_it_was_trained_on(few_samples, tmp_path):
    split = split_heldout(few_samples, 0.3, seed=0)
    folder = write_tiny_bundle(tmp_path / "teacher", training=trained_on(split, config={}))
    with pytest.raises(LeakError, match="which split"):
        require_unseen(read_teachers([str(folder)], FINDING), few_samples, split)


def test_teachers_of_the_same_split_and_of_other_data_pass(few_samples, tmp_path):
    split = split_heldout(few_samples, 0.3, seed=0)
    told = trained_on(split, config={"heldout": 0.3, "seed": 0})
    folders = [
        str(write_tiny_bundle(tmp_path / "same", training=told)),
        str(write_tiny_bundle(tmp_path / "other", training=told | {"n_train": 1})),
        str(write_tiny_bundle(tmp_path / "unknown")),
    ]
    others = {"data_sha256": "0" * 64, "n_train": 1}
    write_tiny_bundle(tmp_path / "other", training=told | others)
    require_unseen(read_teachers(folders, FINDING), few_samples, split)
