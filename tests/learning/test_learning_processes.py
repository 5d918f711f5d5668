"""Real processes, started by torchrun as a user starts them, on this machine's loopback.

To rounding means: losses to 1e-5 of their size, weights to 1e-5 of their tensor's norm.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from chestxray.dataset import read_dataset
from chestxray.errors import ConfigError
from chestxray.inference import Predictor
from chestxray.learning.learner import Learner
from chestxray.learning.networks import resnet18
from chestxray.learning.processes import ALONE, Processes, together
from chestxray.learning.training import Run, train
from factories import train_together
from factories.datasets import LABELS, write_dataset
from factories.training_pictures import GENTLE_TOML

TIMEOUT_S = 90
BATCHNORMS = [name for name, m in resnet18().named_modules() if isinstance(m, nn.BatchNorm2d)]
# A batch of 9 makes uneven shares; what learns changes twice, each time with the size.
CHANGES = {
    "side_px": 32,
    "batch_size": 9,
    "heldout": 0.3,
    "learning_rate": 1e-4,
    "stages": [
        {"epochs": 2, "side_px": 32, "frozen": BATCHNORMS},
        {"epochs": 1, "side_px": 48, "frozen": [*BATCHNORMS, "conv1", "layer1"]},
        {"epochs": 1, "side_px": 32, "frozen": BATCHNORMS},
    ],
}


class KilledError(Exception):
    """Stands for the signal that ends a run."""


def silent(message: str) -> None:
    pass


def torchrun(*arguments: object, timeout_s: float = TIMEOUT_S) -> subprocess.CompletedProcess[str]:
    """Start two processes by torchrun, wait for them, and leave none behind."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "--local-addr", "127.0.0.1", *map(str, arguments)]
    tests = Path(__file__).parents[1]
    started = subprocess.Popen(
        command,
        env=os.environ
        | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(tests)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        out, err = started.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        started.send_signal(signal.SIGTERM)  # torchrun ends the others and then itself
        out, err = started.communicate()
        pytest.fail(f"torchrun took more than {timeout_s} s:\n{out}\n{err}")
    return subprocess.CompletedProcess(command, started.returncode, out, err)


def rows_of(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl, but for what the clock says."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [{k: v for k, v in row.items() if k not in {"wall_s", "images_per_s"}} for row in rows]


def assert_equal_to_rounding(one: Path, other: Path) -> None:
    expected = rows_of(other)
    assert rows_of(one) == [
        {k: pytest.approx(v, rel=1e-5) for k, v in row.items()} for row in expected
    ]
    weights, others = (load_file(f / "weights.safetensors") for f in (one, other))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        difference = (tensor - others[name]).double().norm()
        assert difference <= 1e-5 * others[name].double().norm(), name


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("together") / "data", 16)


@pytest.fixture(scope="module")
def config(tiny_config):
    return tiny_config(**CHANGES)


@pytest.fixture(scope="module")
def single(data, config, tmp_path_factory) -> Run:
    return train(config, read_dataset(data, LABELS), tmp_path_factory.mktemp("single"), say=silent)


@pytest.fixture(scope="module")
def start(data, config):
    """Train together into a folder, killed on the way if told so."""

    def started(out: Path, *kill: int) -> subprocess.CompletedProcess[str]:
        return torchrun(train_together.__file__, data, out, config.model_dump_json(), *kill)

    return started


@pytest.fixture(scope="module")
def pair(start, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a run of two processes, and what they said."""
    folder = tmp_path_factory.mktemp("pair")
    done = start(folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_two_processes_have_the_curve_and_the_weights_of_one_to_rounding(single, pair):
    assert_equal_to_rounding(pair[0], single.folder)
    first, last = rows_of(pair[0])[0], rows_of(pair[0])[-1]
    assert last["train_loss"] < first["train_loss"]  # they learnt, so their gradients mattered


def test_only_the_first_process_speaks_and_writes_and_both_get_the_run(single, pair):
    folder, said = pair
    lines = said.splitlines()
    assert [line.split(" ")[1] for line in lines if line.startswith("epoch ")] == [
        "1/4",
        "2/4",
        "3/4",
        "4/4",
    ]
    assert sorted(line for line in lines if " of 2: " in line) == [
        "0 of 2: 4 epochs",
        "1 of 2: 4 epochs",
    ]
    written = {file.name for file in folder.iterdir()}
    assert written == {file.name for file in single.folder.iterdir()}
    assert len(list((folder / "tensorboard").iterdir())) == 1


def test_a_killed_process_ends_the_others_and_the_run_resumes_to_the_bit(start, pair, tmp_path):
    out = tmp_path / "run"
    killed = start(out, 3, 1)
    assert killed.returncode != 0
    assert "SIGKILL" in killed.stderr
    assert len(rows_of(out)) == 2
    resumed = start(out)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch 2 of 4" in resumed.stdout
    assert rows_of(out) == rows_of(pair[0])
    weights = [(f / "weights.safetensors").read_bytes() for f in (out, pair[0])]
    assert weights[0] == weights[1]


def test_a_run_begun_by_one_process_goes_on_with_two(start, data, config, single, tmp_path):
    def kill(what: str, done: int, total: int) -> None:
        if what.startswith("epoch 2/"):
            raise KilledError

    with pytest.raises(KilledError):
        train(config, read_dataset(data, LABELS), tmp_path, progress=kill, say=silent)
    done = start(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "resuming after epoch 1 of 4" in done.stdout
    assert_equal_to_rounding(tmp_path, single.folder)


@pytest.fixture(scope="module")
def more_data(tmp_path_factory) -> Path:
    """Over 100 are held out, because int8 must keep 99 % of their labels."""
    return write_dataset(tmp_path_factory.mktemp("more") / "data", 104)


@pytest.fixture
def recipe(tmp_path) -> Path:
    """Nothing is frozen."""
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        'name = "tiny"\nside_px = 32\nheldout = 0.5\nbatch_size = 16\nlearning_rate = 1e-3\n'
        'ema_decay = 0.8\nprecision = "fp32"\nthreads = 1\n'
        f"{GENTLE_TOML}[[stages]]\nepochs = 6\nside_px = 32\n",
        encoding="utf-8",
    )
    return recipe


def test_the_command_line_trains_with_two_processes_and_exports_one_bundle(
    more_data, recipe, tmp_path
):
    out = tmp_path / "run"
    command = ("-m", "chestxray", "train", recipe, "--data", more_data, "--out", out)
    done = torchrun(*command)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len([line for line in lines if line.startswith("epoch ")]) == 6
    assert len([line for line in lines if "tiny, int8" in line]) == 1
    assert Predictor.load(out / "bundle").manifest.name == "tiny"
    assert rows_of(out)[-1]["heldout_auroc"] > 0.9

    recipe.write_text(recipe.read_text("utf-8").replace("1e-3", "1e-4"), encoding="utf-8")
    started = time.monotonic()
    refused = torchrun(*command)
    assert refused.returncode != 0
    assert "another config" in refused.stderr
    assert time.monotonic() - started < 60  # the other did not wait for what would never come


def test_two_processes_repeat_a_recipe_and_sum_up_once(more_data, recipe, tmp_path):
    out = tmp_path / "runs"
    told = ("--data", more_data, "--out", out, "--seeds", "2")
    done = torchrun("-m", "chestxray", "train", recipe, *told)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("seed ")] == ["seed 0", "seed 1"]
    assert len([line for line in lines if line.startswith("auroc")]) == 1
    seeds = json.loads((out / "seeds.json").read_text(encoding="utf-8"))["seeds"]
    assert [run["seed"] for run in seeds] == [0, 1]
    assert all((out / f"seed-{seed}" / "bundle" / "manifest.json").is_file() for seed in (0, 1))


def test_who_is_started_alone_has_no_group(monkeypatch):
    for world in (None, "1"):
        if world:
            monkeypatch.setenv("WORLD_SIZE", world)
        else:
            monkeypatch.delenv("WORLD_SIZE", raising=False)
        with together() as processes:
            assert processes == ALONE
            assert (processes.first, processes.alone) == (True, True)
            processes.wait()
            assert processes.mean(torch.tensor(2.5)) == 2.5
            assert not torch.distributed.is_initialized()


def test_half_of_what_torchrun_says_is_an_error(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="torchrun"), together():
        pass


def test_a_batch_that_leaves_a_process_without_an_image_is_refused(tiny_config):
    with pytest.raises(ConfigError, match="batch_size"):
        Learner(resnet18(), tiny_config(batch_size=2), steps_per_epoch=1, processes=Processes(0, 3))


def test_a_process_that_does_not_see_the_runs_folder_says_so(data, config, tmp_path):
    elsewhere = Processes(rank=1, world=1)  # as if the first had written on its own machine
    with pytest.raises(ConfigError, match="one folder for all processes"):
        train(config, read_dataset(data, LABELS), tmp_path / "run", processes=elsewhere, say=silent)
    assert not (tmp_path / "run").exists()
