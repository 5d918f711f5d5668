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
from chestxray.learning.augmentation import Augmenter
from chestxray.learning.inputs import AugmentedInputs, data_sha256, decode, targets_of
from chestxray.learning.inputs import training_batches as batches_of
from chestxray.learning.networks import resnet18
from chestxray.learning.teaching import read_teachers, require_unseen
from chestxray.learning.training import Learner, network_logits, train
from factories.bundles import FINDING as TINY_FINDING
from factories.bundles import OTHER_FINDING, write_tiny_bundle
from factories.command_line import chestxray
from factories.datasets import radiograph_levels

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


@pytest.fixture(scope="module")
def levels():
    return np.stack([radiograph_levels(s, opacity=s % 2 == 1, side_px=64) for s in range(6)])


TRUTHS = np.array([0, 1, 0, 1, 0, 1], np.float32)


def trained_on(split: Split, **told: object) -> dict:
    """What the manifest of a bundle that was trained on ``split`` says of it."""
    facts = {"n_train": len(split.train), "n_heldout": len(split.heldout)}
    return facts | {"data_sha256": data_sha256([*split.train, *split.heldout])} | told


# The targets.


def test_teachers_judge_the_very_picture_that_becomes_the_input(
    teacher, another, levels, tiny_config
):
    config = tiny_config(teacher=[str(teacher), str(another)], label_smoothing=0.2)
    config = config.model_copy(update={"teacher_weight": 0.25})
    teachers = read_teachers(config.teacher, config.finding)
    inputs = AugmentedInputs(
        levels, TRUTHS, config, 64, Augmenter(config.augmentation, 64), teachers.probability
    )
    predictors = [Predictor.load(folder) for folder in (teacher, another)]
    taught = set()
    for epoch in range(2):
        for index, truth in enumerate(TRUTHS):
            picture, target = inputs[epoch, index]
            pixels = (picture[0] * config.std + config.mean).clamp(0, 1).numpy()
            shown = Radiograph(pixels, "PNG", 64, 64)
            told = np.mean([p.predict([shown])[0].probability for p in predictors])
            smoothed = 0.9 if truth else 0.1
            assert target.dtype == torch.float32
            assert float(target) == pytest.approx(0.75 * smoothed + 0.25 * told, abs=1e-4)
            taught.add(round(float(told), 4))
    assert len(taught) == 12  # another picture in every epoch, and another answer


@pytest.mark.parametrize(("weight", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_the_weight_is_the_share_of_the_teachers(teacher, levels, tiny_config, weight, share):
    config = tiny_config(teacher=[str(teacher)], teacher_weight=weight, label_smoothing=0.2)
    probability = read_teachers(config.teacher, config.finding).probability(levels[1])
    _, target = AugmentedInputs(levels, TRUTHS, config, 64, None, lambda _: probability)[0, 1]
    assert float(target) == pytest.approx(share * probability + (1 - share) * 0.9)


def test_targets_are_the_same_from_workers(teacher, levels, tiny_config):
    told = {}
    for workers in (0, 2):
        config = tiny_config(teacher=[str(teacher)], batch_size=2, workers=workers)
        teach = read_teachers(config.teacher, config.finding).probability
        batches = batches_of(levels, TRUTHS, [""] * 6, config, range(2), teach=teach)
        told[workers] = torch.cat([targets for _, targets in batches])
    assert torch.equal(told[0], told[2])
    assert len(told[0].unique()) == 12


@pytest.mark.parametrize(("teachers", "smoothing"), [((), 0.2), (("a bundle",), 0.0)])
def test_the_loss_smooths_only_targets_that_are_truths(tiny_config, teachers, smoothing):
    torch.manual_seed(0)
    network = resnet18().to(memory_format=torch.channels_last)
    config = tiny_config(label_smoothing=0.2, teacher=teachers)
    learner = Learner(network, config, steps_per_epoch=2)
    inputs, targets = torch.randn(4, 1, 32, 32), torch.tensor([0.1, 0.4, 0.6, 1.0])
    learner.begin(0)
    with torch.no_grad():
        logit = resnet_twin(network)(inputs.contiguous(memory_format=torch.channels_last)).logit
    loss = learner.step(inputs, targets, 0, 0)
    smoothed = targets * (1 - smoothing) + smoothing / 2
    expected = functional.binary_cross_entropy_with_logits(logit, smoothed)
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def resnet_twin(network):
    """A copy in training mode, whose statistics may move without moving the original's."""
    twin = resnet18().to(memory_format=torch.channels_last).train()
    twin.load_state_dict(network.state_dict())
    return twin


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
        "threads = 1\nworkers = 1\n[augmentation]\ncrop_p = 0.0\ngamma_p = 0.0\nerase_p = 0.0\n"
        "brightness = 0.1\nnoise_p = 0.1\nsharpness_p = 0.1\nswap_p = 0.0\njpeg_p = 0.1\n"
        "contrast = 0.2\n[[stages]]\nepochs = 4\nside_px = 32\n",
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
