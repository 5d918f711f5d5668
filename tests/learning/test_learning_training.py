import copy
import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.nn import functional

from chestxray.dataset import read_dataset, read_split, split_heldout
from chestxray.errors import (
    ConfigError,
    DatasetError,
    LeakError,
    RunMismatchError,
    WeightsError,
)
from chestxray.learning.networks import resnet18
from chestxray.learning.training import Learner, Run, mix_up, read_run, train
from factories.datasets import LABELS, write_dataset

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
    return train(tiny_config(**SHORT, mixup_alpha=0.2), few_samples, folder, say=silent)


# The learner, a step at a time.


def learner_of(tiny_config, *, seed: int = 0, **changes) -> Learner:
    torch.manual_seed(seed)
    network = resnet18().to(memory_format=torch.channels_last)
    config = tiny_config(**changes)
    return Learner(network, config, steps_per_epoch=2)


def batch(n: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(n, 1, 32, 32, generator=generator), (torch.arange(n) % 2).float()


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


def loss_of(learner: Learner) -> tuple[float, Tensor]:
    """The loss of a step, and the logits that it was computed from."""
    learner.begin(0)
    inputs, targets = batch()
    twin = copy.deepcopy(learner.network)
    logit = twin(inputs.contiguous(memory_format=torch.channels_last)).logit.detach()
    return float(learner.step(inputs, targets, epoch=0, step=0)), logit


def test_without_smoothing_the_loss_is_binary_cross_entropy(tiny_config):
    loss, logit = loss_of(learner_of(tiny_config, label_smoothing=0))
    expected = functional.binary_cross_entropy_with_logits(logit, batch()[1])
    assert loss == pytest.approx(float(expected), rel=1e-4)


def test_label_smoothing_moves_the_targets_towards_a_half(tiny_config):
    loss, logit = loss_of(learner_of(tiny_config, label_smoothing=0.2))
    smoothed = torch.where(batch()[1] > 0.5, 0.9, 0.1)
    expected = functional.binary_cross_entropy_with_logits(logit, smoothed)
    assert loss == pytest.approx(float(expected), rel=1e-4)


def test_mixup_mixes_every_input_and_its_target_with_the_same_partner_and_share(tiny_config):
    config = tiny_config(mixup_alpha=0.4)
    n = 8
    # Input i is 1 at place i alone, so the mixture tells its parts.
    inputs, targets = torch.eye(n).reshape(n, 1, 1, n), torch.arange(n).float()
    mixed, mixed_targets = mix_up(inputs, targets, config, epoch=1, step=2)
    shares = mixed.reshape(n, n)
    torch.testing.assert_close(shares.sum(1), torch.ones(n))
    torch.testing.assert_close(mixed_targets, shares @ targets)
    own = {round(float(shares[i, i]), 5) for i in range(n)}
    assert len(own - {1.0}) == 1  # one share for the batch; 1 where an input met itself


def test_mixup_follows_from_seed_epoch_and_step(tiny_config):
    config = tiny_config(mixup_alpha=0.4)
    inputs, targets = batch()
    first = mix_up(inputs, targets, config, 1, 2)[0]
    assert torch.equal(first, mix_up(inputs, targets, config, 1, 2)[0])
    assert not torch.equal(first, mix_up(inputs, targets, config, 1, 3)[0])
    assert not torch.equal(first, mix_up(inputs, targets, config, 2, 2)[0])


def test_no_mixup_leaves_the_batch_as_it_is(tiny_config):
    inputs, targets = batch()
    mixed, mixed_targets = mix_up(inputs, targets, tiny_config(mixup_alpha=0), 0, 0)
    assert torch.equal(mixed, inputs)
    assert torch.equal(mixed_targets, targets)


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
from chestxray.learning.training import Learner
torch.set_num_threads(1)
config = TrainConfig.model_validate_json(sys.argv[1])
inputs = torch.randn(4, 1, 32, 32, generator=torch.Generator().manual_seed(5))
for compiled in (False, True):
    torch.manual_seed(0)
    network = resnet18().to(memory_format=torch.channels_last)
    told = config.model_copy(update={"compile": compiled})
    learner = Learner(network, told, steps_per_epoch=2)
    learner.begin(0)
    print(*(float(learner.step(inputs, torch.arange(4.0) % 2, 0, step)) for step in range(2)))
assert "_orig_mod" not in "".join(learner.state()["network"])
"""
    config = tiny_config(stages=[{"epochs": 1, "side_px": 32}], learning_rate=1e-4)
    done = subprocess.run(
        [sys.executable, "-c", code, config.model_dump_json()],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    plain, compiled = ([float(loss) for loss in line.split()] for line in done.stdout.splitlines())
    assert compiled == pytest.approx(plain, rel=1e-4)
    assert plain[1] < plain[0]


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


def test_the_number_of_workers_changes_nothing(undisturbed, few_samples, tmp_path):
    config = undisturbed.config.model_copy(update={"workers": 1})
    train(config, few_samples, tmp_path, say=silent)
    assert weights_of(tmp_path) == weights_of(undisturbed.folder)
    assert rows_of(tmp_path) == rows_of(undisturbed.folder)


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


def test_a_run_begun_before_a_key_of_the_config_was_there_goes_on(
    undisturbed, few_samples, tmp_path
):
    config, out = undisturbed.config, tmp_path / "run"
    with pytest.raises(KilledError):
        train(config, few_samples, out, progress=kill_in(3, 1), say=silent)
    told = json.loads((out / "config.json").read_text(encoding="utf-8"))
    del told["teachers"]
    for key in ("teacher", "teacher_weight", "finding", "modalities", "body_parts", "views"):
        del told["config"][key]
    (out / "config.json").write_text(json.dumps(told), encoding="utf-8")
    assert train(config, few_samples, out, say=silent).teachers == ()
    assert weights_of(out) == weights_of(undisturbed.folder)


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
