import copy
import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.nn import functional

from chestxray import imaging
from chestxray.dataset import Sample, read_dataset, read_split, split_heldout
from chestxray.dataset.boxes import Box
from chestxray.errors import (
    ConfigError,
    DatasetError,
    LeakError,
    RunMismatchError,
    WeightsError,
)
from chestxray.learning.augmentation import Batch
from chestxray.learning.config import EvidenceLoss
from chestxray.learning.evidence_loss import evidence_loss
from chestxray.learning.inputs import NOWHERE, Where
from chestxray.learning.learner import Learner
from chestxray.learning.networks import resnet18
from chestxray.learning.training import Run, read_run, train
from factories import images
from factories.datasets import LABELS, published_names, write_dataset, write_files
from factories.training_pictures import NEVER, batch_of

SHORT = {"stages": [{"epochs": 3, "side_px": 32}], "side_px": 32, "batch_size": 8, "heldout": 0.3}


class KilledError(Exception):
    """Stands for the signal that ends a run."""


def silent(message: str) -> None:
    pass


def kill_in(epoch: int, step: int):
    """A Progress that kills the run after a step of an epoch, both from 1."""

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith(f"epoch {epoch}/") and done == step:
            raise KilledError

    return progress


def weights_of(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def rows_of(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl, but for what the clock says."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k not in {"wall_s", "images_per_s"}} for row in rows]


@pytest.fixture(scope="module")
def undisturbed(few_samples, tiny_config, tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("undisturbed")
    return train(tiny_config(**SHORT), few_samples, folder, say=silent)


# The learner, a step at a time.


def learner_of(tiny_config, *, seed: int = 0, **changes) -> Learner:
    torch.manual_seed(seed)
    network = resnet18().to(memory_format=torch.channels_last)
    config = tiny_config(**changes)
    return Learner(network, config, steps_per_epoch=2)


def batch(n: int = 8) -> tuple[Batch, Tensor]:
    """Pictures of which nothing but the truth is known, and the targets."""
    pixels = torch.rand(n, 1, 32, 32, generator=torch.Generator().manual_seed(5))
    targets = (torch.arange(n) % 2).float()
    return batch_of(pixels, targets), targets


def state_of(network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_frozen_parts_stand_still_with_their_batchnorm_statistics_and_the_others_move(tiny_config):
    frozen = ("conv1", "bn1", "layer1", "layer2.0")
    stages = [{"epochs": 1, "side_px": 32}, {"epochs": 1, "side_px": 32, "frozen": frozen}]
    learner = learner_of(tiny_config, stages=stages)
    learner.begin(0)
    learner.step(*batch(), epoch=0, step=0)
    learner.step(*batch(), epoch=0, step=1)
    before = state_of(learner.network)  # from here AdamW has momenta that would move a weight
    learner.begin(1)
    learner.step(*batch(), epoch=1, step=0)
    for name, tensor in learner.network.state_dict().items():
        still = torch.equal(tensor, before[name])
        assert still == name.startswith(tuple(f"{part}." for part in frozen)), name


def test_what_was_frozen_learns_again_when_its_stage_is_over(tiny_config):
    stages = [
        {"epochs": 1, "side_px": 32, "frozen": ["conv1", "bn1"]},
        {"epochs": 1, "side_px": 32},
    ]
    learner = learner_of(tiny_config, stages=stages)
    before = state_of(learner.network)
    learner.begin(0)
    learner.step(*batch(), epoch=0, step=0)
    assert torch.equal(learner.network.conv1.weight, before["conv1.weight"])
    learner.begin(1)
    learner.step(*batch(), epoch=1, step=0)
    for name in ("conv1.weight", "bn1.weight", "bn1.running_mean", "bn1.num_batches_tracked"):
        assert not torch.equal(learner.network.state_dict()[name], before[name]), name


def test_the_ema_is_the_running_mean_of_the_weights_and_statistics(tiny_config):
    learner = learner_of(tiny_config, ema_decay=0.15)
    learner.begin(0)
    mean = state_of(learner.network)
    for step, decay in enumerate((0.15, 0.15)):  # less than the 2/11 and 3/12 of the first updates
        learner.step(*batch(), epoch=0, step=step)
        for name, value in learner.network.state_dict().items():
            if value.is_floating_point():
                mean[name] = decay * mean[name] + (1 - decay) * value
            else:
                mean[name] = value.clone()
    for name, value in learner.ema.state_dict().items():
        torch.testing.assert_close(value, mean[name], msg=name)


def test_the_first_updates_of_the_ema_forget_the_random_start_fast(tiny_config):
    learner = learner_of(tiny_config, ema_decay=0.998)
    start = learner.network.fc.weight.detach().clone()
    learner.begin(0)
    learner.step(*batch(), epoch=0, step=0)
    expected = torch.lerp(start, learner.network.fc.weight.detach(), 9 / 11)
    torch.testing.assert_close(learner.ema.fc.weight, expected)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine_to_zero(tiny_config):
    stages = [{"epochs": 3, "side_px": 32}]
    learner = learner_of(tiny_config, stages=stages, warmup_epochs=1, learning_rate=0.01)
    rates = []
    for epoch in range(3):
        learner.begin(epoch)
        for step in range(2):
            learner.step(*batch(4), epoch=epoch, step=step)
            rates.append(learner.learning_rate)
            assert {g["lr"] for g in learner.optimiser.param_groups} == {learner.learning_rate}
    cosine = [0.005 * (1 + math.cos(math.pi * done / 4)) for done in (1, 2, 3, 4)]
    assert rates == pytest.approx([0.005, 0.01, *cosine])


def test_the_loss_is_binary_cross_entropy_and_what_is_asked_of_the_evidence(tiny_config):
    learner = learner_of(tiny_config)
    learner.begin(0)
    pixels = torch.rand(8, 1, 64, 64, generator=torch.Generator().manual_seed(5))
    pictures = replace(
        batch_of(pixels, torch.arange(8.0) % 2),
        lungs=torch.eye(2).repeat_interleave(8, 0).repeat_interleave(8, 1).expand(8, 16, 16),
        knows_lungs=torch.ones(8, dtype=torch.bool),
    )
    wanted = torch.rand(8, generator=torch.Generator().manual_seed(6))  # of teachers, perhaps
    config = learner.config
    inputs = (pictures.pixels - config.mean) / config.std
    twin = copy.deepcopy(learner.network)
    with torch.no_grad():
        answer = twin(inputs.contiguous(memory_format=torch.channels_last))
    of_logit = functional.binary_cross_entropy_with_logits(answer.logit, wanted)
    of_evidence = evidence_loss(answer.evidence, pictures, config.evidence)
    assert of_evidence > 0
    loss = learner.step(pictures, wanted, epoch=0, step=0)
    assert float(loss) == pytest.approx(float(of_logit + of_evidence), rel=1e-4)
    plain = learner_of(tiny_config, evidence=dict.fromkeys(EvidenceLoss.model_fields, 0.0))
    plain.begin(0)
    assert float(plain.step(pictures, wanted, 0, 0)) == pytest.approx(float(of_logit), rel=1e-4)


def test_biases_and_batchnorm_scales_do_not_decay(tiny_config):
    learner = learner_of(tiny_config, weight_decay=0.3)
    decay = {
        id(p): group["weight_decay"]
        for group in learner.optimiser.param_groups
        for p in group["params"]
    }
    for name, parameter in learner.network.named_parameters():
        assert decay[id(parameter)] == (0.3 if parameter.ndim > 1 else 0), name


def test_a_compiled_network_learns_what_the_network_learns(tiny_config):
    """In a process of its own, since PyTorch's compiler warns as it is loaded."""
    code = """
import sys
from pathlib import Path
import torch
from chestxray.learning.config import TrainConfig
from chestxray.learning.networks import resnet18
from chestxray.learning.learner import Learner
from factories.training_pictures import batch_of
torch.set_num_threads(1)
config = TrainConfig.model_validate_json(sys.argv[1])
targets = torch.arange(4.0) % 2
batch = batch_of(torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(5)), targets)
for compiled in (False, True):
    torch.manual_seed(0)
    network = resnet18().to(memory_format=torch.channels_last)
    told = config.model_copy(update={"compile": compiled})
    learner = Learner(network, told, steps_per_epoch=2)
    learner.begin(0)
    print(*(float(learner.step(batch, targets, 0, step)) for step in range(2)))
assert "_orig_mod" not in "".join(learner.state()["network"])
"""
    config = tiny_config(stages=[{"epochs": 1, "side_px": 32}], learning_rate=1e-4)
    done = subprocess.run(
        [sys.executable, "-c", code, config.model_dump_json()],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    plain, compiled = ([float(loss) for loss in line.split()] for line in done.stdout.splitlines())
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert plain[1] < plain[0]


# What the learner is shown.


class Shown(NamedTuple):
    epoch: int
    step: int
    batch: Batch
    targets: Tensor


@pytest.fixture
def shown(monkeypatch) -> list[Shown]:
    """All that a learner is given; it learns nothing."""
    given: list[Shown] = []

    def step(learner: Learner, batch: Batch, targets: Tensor, epoch: int, step: int) -> Tensor:
        given.append(Shown(epoch, step, batch, targets))
        return torch.zeros(())

    monkeypatch.setattr(Learner, "step", step)
    return given


@pytest.fixture
def levelled(tmp_path) -> list[Sample]:
    """25 pictures of each truth, each of one grey level that no other has: negatives to 24."""
    files = {
        f"{truth}/{name}": images.png(np.full((40, 40), i + 25 * positive, np.uint8))
        for positive, truth in enumerate(LABELS)
        for i, name in enumerate(published_names(25, positive=bool(positive)))
    }
    return read_dataset(write_files(tmp_path / "levelled", files), LABELS)


def level_of(sample: Sample) -> int:
    return round(float(imaging.read_file(sample.file).pixels[0, 0]) * 255)


def test_an_epoch_shows_every_picture_once_but_for_an_incomplete_last_batch(
    shown, levelled, tiny_config, tmp_path
):
    stages = [{"epochs": 1, "side_px": 32}, {"epochs": 1, "side_px": 48}]
    config = tiny_config(
        stages=stages, augmentation=NEVER, heldout=0.1, batch_size=8, label_smoothing=0.2
    )
    split = train(config, levelled, tmp_path / "run", say=silent).split
    n_steps = len(split.train) // 8
    assert [(of.epoch, of.step) for of in shown] == [(e, s) for e in (0, 1) for s in range(n_steps)]
    orders = []
    for epoch, side_px in enumerate((32, 48)):
        given = [of for of in shown if of.epoch == epoch]
        assert {of.batch.pixels.shape for of in given} == {(8, 1, side_px, side_px)}
        levels = torch.cat([of.batch.pixels[:, 0, 5, 5] for of in given]).mul(255).round()
        targets = torch.cat([of.targets for of in given])
        torch.testing.assert_close(targets, torch.where(levels >= 25, 0.9, 0.1))
        orders.append(levels.tolist())
        assert len(set(orders[-1])) == 8 * n_steps
        assert set(orders[-1]) <= set(map(level_of, split.train))
    assert orders[0] != orders[1]


def test_boxes_and_lungs_come_with_their_pictures(shown, levelled, tiny_config, tmp_path):
    """Positives of an even grey level have their box on the left, others on the right."""
    top = np.zeros((224, 224), bool)
    top[:112] = True
    where = Where(
        boxes={
            s.path: [Box(20 * (level_of(s) % 2), 0, 20, 40, "")] for s in levelled if s.positive
        },
        lungs={s.path: top for s in levelled if not s.positive},
    )
    config = tiny_config(
        stages=[{"epochs": 1, "side_px": 32}],
        augmentation=NEVER,
        heldout=0.1,
        batch_size=8,
        label_smoothing=0,
    )
    run = train(config, levelled, tmp_path / "run", where=where, say=silent)
    told = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert told["where_sha256"] == where.sha256
    for _, _, given, targets in shown:
        assert torch.equal(given.knows_boxes, targets == 1)
        assert torch.equal(given.knows_lungs, targets == 0)
        for lungs in given.lungs[given.knows_lungs]:
            assert (lungs[:3] > 0.99).all()
            assert (lungs[5:] < 0.01).all()
        levels = given.pixels[given.knows_boxes, 0, 5, 5].mul(255).round().int()
        for level, boxes in zip(levels.tolist(), given.boxes[given.knows_boxes], strict=True):
            within, beside = (
                (boxes[:, 5:], boxes[:, :3]) if level % 2 else (boxes[:, :3], boxes[:, 5:])
            )
            assert (within > 0.99).all()
            assert (beside < 0.01).all()


# Whole runs.


def test_training_on_truths_that_can_be_learnt_learns_them(run):
    rows = rows_of(run.folder)
    assert [row["epoch"] for row in rows] == list(range(1, 8))
    assert [row["side_px"] for row in rows] == [32] + [64] * 6
    assert rows[-1]["train_loss"] < 0.7 * rows[0]["train_loss"]
    assert rows[-1]["heldout_loss"] < 0.3
    assert rows[-1]["heldout_auroc"] > 0.98


def test_a_run_holds_its_config_its_split_its_metrics_and_their_pictures(run, samples, tiny_config):
    told = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    assert told == {
        "config": tiny_config().model_dump(mode="json"),
        "initialised_from": "random",
        "teachers": [],
        "where_sha256": NOWHERE.sha256,
    }
    split = read_split(run.folder / "split.json", samples)
    assert split == run.split == split_heldout(samples, 0.5, seed=0)
    assert (run.folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run.folder.glob(".*"))  # nothing half-written stays behind


def test_the_tensorboard_log_has_what_the_metrics_have(run):
    events = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    for name in ("learning_rate", "train_loss", "heldout_loss", "heldout_auroc"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        rows = [(row["epoch"], pytest.approx(row[name], rel=1e-5)) for row in rows_of(run.folder)]
        assert logged == rows


def test_the_ema_is_what_a_run_writes(undisturbed):
    checkpoint = torch.load(undisturbed.folder / "checkpoint.pt", weights_only=True)["learner"]
    written = load_file(undisturbed.folder / "weights.safetensors")
    assert written.keys() == checkpoint["ema"].keys()
    assert all(torch.equal(written[name], tensor) for name, tensor in checkpoint["ema"].items())
    assert not torch.equal(written["fc.weight"], checkpoint["network"]["fc.weight"])
    for name, tensor in undisturbed.network.state_dict().items():
        assert torch.equal(tensor, written[name])


@pytest.mark.parametrize(("epoch", "step"), [(1, 2), (2, 1), (3, 2)])
def test_a_killed_run_resumes_and_ends_equal_to_the_bit(
    undisturbed, few_samples, tmp_path, epoch, step
):
    config, out = undisturbed.config, tmp_path / "run"
    with pytest.raises(KilledError):
        train(config, few_samples, out, progress=kill_in(epoch, step), say=silent)
    with pytest.raises(WeightsError):
        read_run(out, few_samples)
    torch.manual_seed(99)  # whatever went on meanwhile
    said: list[str] = []
    train(config, few_samples, out, say=said.append)
    assert any(f"resuming after epoch {epoch - 1}" in line for line in said) == (epoch > 1)
    assert weights_of(out) == weights_of(undisturbed.folder)
    assert rows_of(out) == rows_of(undisturbed.folder)


def test_another_seed_gives_another_run(undisturbed, few_samples, tmp_path):
    config = undisturbed.config.model_copy(
        update={"seed": 1, "stages": undisturbed.config.stages[:1]}
    )
    train(config, few_samples, tmp_path, split=undisturbed.split, say=silent)
    assert rows_of(tmp_path)[0]["train_loss"] != rows_of(undisturbed.folder)[0]["train_loss"]


def test_a_finished_run_called_again_stays_as_it_is(undisturbed, few_samples):
    def stamps() -> dict[str, int]:
        return {f.name: f.stat().st_mtime_ns for f in undisturbed.folder.iterdir() if f.is_file()}

    before = stamps()
    again = train(undisturbed.config, few_samples, undisturbed.folder, say=silent)
    assert stamps() == before
    assert again.history == undisturbed.history


def test_another_config_in_the_folder_of_a_run_is_refused(undisturbed, few_samples):
    other = undisturbed.config.model_copy(update={"learning_rate": 0.5})
    with pytest.raises(RunMismatchError, match="another config"):
        train(other, few_samples, undisturbed.folder, say=silent)


def test_other_boxes_in_the_folder_of_a_run_are_refused(undisturbed, few_samples):
    positive = next(s for s in few_samples if s.positive)
    where = Where(boxes={positive.path: [Box(1, 2, 3, 4, "opacity")]})
    with pytest.raises(RunMismatchError):
        train(undisturbed.config, few_samples, undisturbed.folder, where=where, say=silent)


def test_other_initial_weights_in_the_folder_of_a_run_are_refused(undisturbed, run, few_samples):
    with pytest.raises(RunMismatchError):
        train(undisturbed.config, few_samples, undisturbed.folder, init=run.folder, say=silent)


def test_other_data_in_the_folder_of_a_run_are_refused(undisturbed, tmp_path):
    other = read_dataset(write_dataset(tmp_path / "data", 16, first_seed=1000), LABELS)
    with pytest.raises(DatasetError, match="not the file that was split"):
        train(undisturbed.config, other, undisturbed.folder, say=silent)


def test_more_data_in_the_folder_of_a_run_are_refused(undisturbed, tmp_path):
    more = read_dataset(write_dataset(tmp_path / "data", 18), LABELS)
    with pytest.raises(RunMismatchError, match="another split"):
        train(undisturbed.config, more, undisturbed.folder, say=silent)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": [{"epochs": 1, "side_px": 32, "frozen": ["layer9"]}]}, "layer9"),
        ({"batch_size": 64}, "fewer training images"),
    ],
)
def test_a_run_that_cannot_start_says_why_and_leaves_nothing_behind(
    few_samples, tiny_config, tmp_path, changes, said
):
    with pytest.raises(ConfigError, match=said):
        train(tiny_config(**{**SHORT, **changes}), few_samples, tmp_path / "run", say=silent)
    assert not (tmp_path / "run").exists()


def test_a_run_starts_from_an_earlier_one_and_says_what_was_loaded(
    run, few_samples, tiny_config, tmp_path
):
    said: list[str] = []
    config = tiny_config(**SHORT | {"stages": [{"epochs": 1, "side_px": 32}]}, learning_rate=1e-9)
    started = train(config, few_samples, tmp_path, init=run.folder, say=said.append)
    assert "122 tensors loaded" in said[0]
    assert "missing" not in said[0]
    weights = (run.folder / "weights.safetensors").read_bytes()
    sha256 = hashlib.sha256(weights).hexdigest()
    assert started.initialised_from == f"{run.folder.name}, SHA-256 {sha256}"
    torch.testing.assert_close(
        started.network.conv1.weight, run.network.conv1.weight, rtol=0, atol=1e-6
    )


def test_a_folder_without_a_run_is_an_error(tmp_path, few_samples):
    with pytest.raises(ConfigError, match="no run"):
        read_run(tmp_path, few_samples)


def test_a_run_read_back_with_other_data_is_an_error(undisturbed, few_samples):
    with pytest.raises(DatasetError):
        read_run(undisturbed.folder, few_samples[1:])


def test_a_run_that_was_trained_on_what_is_held_out_now_is_no_place_to_start_from(
    undisturbed, few_samples, tiny_config, tmp_path
):
    config = tiny_config(**SHORT, seed=undisturbed.config.seed + 1)  # so another split
    with pytest.raises(LeakError):
        train(config, few_samples, tmp_path / "run", init=undisturbed.folder, say=silent)
    assert not (tmp_path / "run").exists()
