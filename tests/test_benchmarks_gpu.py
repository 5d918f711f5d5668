"""The quarter of an hour on a GPU, on tiny data and this machine's CPU: no speed, no quality."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from chestxray.dataset import read_dataset, split_heldout
from chestxray.errors import ConfigError, DatasetError
from chestxray.learning.config import TrainConfig, read_config
from chestxray.learning.inputs import read_pictures, read_where
from chestxray.learning.training import read_run
from factories.datasets import LABELS, write_dataset
from factories.training_pictures import GENTLE_TOML

REPOSITORY = Path(__file__).parents[1]
PROGRAM = REPOSITORY / "benchmarks" / "gpu.py"
sys.path.insert(0, str(PROGRAM.parent))

import gpu  # noqa: E402

CONFIG = f"""
name = "tiny"
side_px = 64
heldout = 0.5
batch_size = 8
sampling = "strata"
strata_alike = 0.1
precision = "fp32"
threads = 1
{GENTLE_TOML}
[[stages]]
epochs = 1
side_px = 64
"""

PLAN = """
side_px = 32
seconds = 1

[[network]]
name = "slow"
learning_rate = 1e-5

[[network]]
name = "broken"
leave_out = ["data"]

[[network]]
name = "first"
learning_rate_of = ["slow", "broken"]
side_px = 48

[[network]]
name = "second"
seed = 1
teachers = ["first", "broken"]

[[network]]
name = "never"
seconds = 1e6
"""

ALONE = f"""
import sys
import numpy, PIL.Image, PIL.ImageDraw, PIL.ImageFont, torch, torch._dynamo

there = {{name.partition(".")[0] for name in sys.modules}}
allowed = there | sys.stdlib_module_names | {{"chestxray", "gpu"}}

class Forbid:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ImportError(f"{{name}} is not on the GPU's machine")

sys.meta_path.insert(0, Forbid())
sys.path[:0] = [{str(PROGRAM.parent)!r}, {str(REPOSITORY / "src")!r}]
torch.set_num_threads(1)
import gpu
gpu.main(sys.argv[1:])
"""
"""Runs the program as where nothing is installed but PyTorch, NumPy, Pillow and what they import
(PyTorch's optimisers its compiler, at their first use)."""


class Learned(NamedTuple):
    data: Path
    config: TrainConfig
    pack: Path
    plan: Path
    out: Path
    networks: dict[str, Any]


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    """20 pictures of each truth, packed and learned from."""
    folder = tmp_path_factory.mktemp("gpu")
    data, config, plan = write_dataset(folder / "data", 20), folder / "c.toml", folder / "p.toml"
    config.write_text(CONFIG, encoding="utf-8")
    plan.write_text(PLAN, encoding="utf-8")
    first = sorted((data / "PNEUMONIA").iterdir())
    lines = [f"data,PNEUMONIA/{file.name},finding,8,8,24,24" for file in first]
    (folder / "boxes.csv").write_text(
        "\n".join(["source,file,finding,x,y,w,h", *lines]) + "\n", encoding="utf-8"
    )
    files = ["--data", str(data), "--boxes", str(folder / "boxes.csv")]
    gpu.main(["pack", str(config), *files, "--out", str(folder / "pack.npz")])
    told = [str(folder / "pack.npz"), "--plan", str(plan), "--out", str(folder / "out")]
    subprocess.run([sys.executable, "-c", ALONE, "learn", *told], check=True)
    networks = json.loads((folder / "out" / gpu.FIGURES).read_text(encoding="utf-8"))["networks"]
    return Learned(data, read_config(config), folder / "pack.npz", plan, folder / "out", networks)


def test_what_is_packed_comes_back_but_for_what_jpeg_takes(learned: Learned) -> None:
    samples = read_dataset(learned.data, LABELS)
    split = split_heldout(samples, learned.config.heldout, learned.config.seed)
    boxes = read_where(samples, learned.config, learned.pack.with_name("boxes.csv"), [])
    smaller = learned.config.model_copy(update={"side_px": gpu.PACKED_AS_FOR_PX})
    listed, device = [*split.train, *split.heldout], torch.device("cpu")
    wanted = read_pictures(listed, smaller, device, boxes)
    packed = gpu.unpack(learned.pack, device)
    assert packed.n_train == len(split.train)
    assert [sample.truth for sample in packed.samples] == [sample.truth for sample in listed]
    off = packed.pictures.levels.float() - wanted.levels.float()
    assert packed.pictures.levels.shape[1:] == (176, 176)
    assert off.abs().mean() < 4
    for name in ("targets", "knows_boxes", "knows_lungs", "lungs_only", "strata"):
        assert torch.equal(getattr(packed.pictures, name), getattr(wanted, name)), name
    assert torch.equal(packed.pictures.boxes > 127, wanted.boxes > 127)
    assert wanted.knows_boxes.any()


def test_a_mask_comes_back_but_for_its_edge() -> None:
    mask = torch.zeros(1, 176, 176, dtype=torch.uint8)
    mask[0, 40:120, 30:90] = 255
    bits = gpu._to_bits(gpu._resized(mask, 48))
    found = gpu._resized(gpu._of_bits(bits), 176)
    assert (found > 127).ne(mask > 127).float().mean() < 0.02


def test_every_network_has_its_figures_and_one_that_fails_stops_no_other(learned: Learned) -> None:
    assert list(learned.networks) == ["slow", "broken", "first", "second"]  # and no time for more
    assert "failed" in learned.networks["broken"]
    for name in ("slow", "first", "second"):
        figures = learned.networks[name]
        assert figures["pictures"] == 8 * figures["n_steps"] >= 8
        assert set(figures["auroc"]) == {"all", "data"}
        assert figures["mean_auroc"] == figures["auroc"]["data"]
        assert 0 <= figures["pointing"] <= 1
        assert figures["best_fixed_point"] == 1  # the box is where it is in all


def test_the_rate_is_that_of_the_best_trial_and_teachers_are_those_that_there_are(
    learned: Learned,
) -> None:
    assert learned.networks["first"]["recipe"]["learning_rate"] == 1e-5
    assert learned.networks["second"]["recipe"]["teachers"] == ["first"]
    trials = {f"rate-{n}": {"mean_auroc": n, "recipe": {"learning_rate": n}} for n in (1, 3, 2)}
    entry = {"name": "next", "learning_rate_of": ["rate-1", "rate-2", "rate-3"]}
    config = {"learning_rate": 7}
    assert gpu.settled(entry, config, trials)["learning_rate"] == 3
    assert gpu.settled(entry, config, {"rate-1": {"failed": "so"}})["learning_rate"] == 7


def test_a_pupil_is_told_what_its_teachers_say_of_the_picture_and_its_mirror_image(
    learned: Learned,
) -> None:
    device = torch.device("cpu")
    packed = gpu.unpack(learned.pack, device)
    recipe = gpu.recipe_of({"side_px": 32, "batch_size": 4}, packed.config, device)
    batch = next(gpu._batches(recipe, packed, range(packed.n_train)))
    teacher = gpu.NETWORKS["resnet18"]()
    teacher.load_state_dict(gpu.read_weights(learned.out, "first"))
    teacher.eval()
    with torch.no_grad():
        pixels = torch.nn.functional.interpolate(batch.pixels, (48, 48), mode="bilinear")
        inputs = (pixels - recipe.mean) / recipe.std
        said = (teacher(inputs).logit.sigmoid() + teacher(inputs.flip(3)).logit.sigmoid()) / 2
    truth = batch.targets * 0.95 + 0.025
    found = gpu._targets(batch, [(teacher, 48)], recipe)
    torch.testing.assert_close(found, (truth + said) / 2)


def test_a_network_that_has_no_time_left_once_compiled_is_not_learned(learned: Learned) -> None:
    device = torch.device("cpu")
    packed = gpu.unpack(learned.pack, device)
    recipe = gpu.recipe_of({"side_px": 32}, packed.config, device)
    with pytest.raises(TimeoutError):
        gpu.learnt(recipe, packed, range(packed.n_train), [], (1.0, time.monotonic()))


def test_a_second_call_learns_only_what_is_missing(
    learned: Learned, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def told(entry: dict[str, Any], *_: object) -> dict[str, Any]:
        tried.append(entry["name"])
        raise ConfigError("not today")

    monkeypatch.setattr(gpu, "_learn_one", told)
    before = (learned.out / gpu.FIGURES).read_bytes()
    gpu.learn(argparse.Namespace(pack=learned.pack, plan=learned.plan, out=learned.out, seconds=60))
    (learned.out / gpu.FIGURES).write_bytes(before)
    assert tried == ["broken"]


def test_weights_become_a_run_that_export_can_take(learned: Learned, tmp_path: Path) -> None:
    told = [str(learned.out), "second", "--data", str(learned.data)]
    gpu.main(["run", *told, "--out", str(tmp_path / "run")])
    run = read_run(tmp_path / "run", read_dataset(learned.data, LABELS))
    assert run.config.side_px == run.config.stages[0].side_px == 32
    assert run.config.seed == 0  # the split's
    assert '"teachers": ["first"]' in run.initialised_from
    written = [array for f in learned.out.glob("second.*.npz") for array in np.load(f).items()]
    assert {name: array.shape for name, array in written} == {
        name: tuple(tensor.shape) for name, tensor in run.network.state_dict().items()
    }
    packed = gpu.unpack(learned.pack, torch.device("cpu"))
    recipe = gpu.recipe_of({"side_px": 32}, packed.config, torch.device("cpu"))
    figures = gpu.judged(run.network, recipe, packed, {"data"})
    assert figures["mean_auroc"] == pytest.approx(learned.networks["second"]["mean_auroc"], abs=0.1)


def test_no_run_is_made_of_other_data_or_of_a_network_that_failed(
    learned: Learned, tmp_path: Path
) -> None:
    other = write_dataset(tmp_path / "data", 4, first_seed=100)
    for name, data in (("first", other), ("broken", learned.data), ("none", learned.data)):
        told = argparse.Namespace(learned=learned.out, name=name, data=[data], out=tmp_path / name)
        with pytest.raises((ConfigError, DatasetError)):
            gpu.make_run(told)
        assert not (tmp_path / name).exists()


def test_files_of_weights_are_small_enough_to_come_back(learned: Learned) -> None:
    files = list(learned.out.glob("second.*.npz"))
    assert len(files) == 2
    assert all(file.stat().st_size < 16 << 20 for file in files)


def test_the_plan_is_one_for_the_shipped_recipe() -> None:
    config = read_config(REPOSITORY / "configs" / "resnet18.toml").model_dump(mode="json")
    plan = gpu.read_plan(gpu.PLAN, config)
    for entry in plan:
        changed = {key: value for key, value in entry.items() if key in config}
        TrainConfig.model_validate(config | changed)
    assert plan[0]["batch_size"] == 128
    assert sum(entry["seconds"] for entry in plan) < 10 * 60  # the rest goes to compiling


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        ("name = 'a'\nbatchsize = 3", "unknown: batchsize"),
        ("name = 'a'\nteachers = ['b']\n[[network]]\nname = 'b'", "before one that it needs"),
        ("name = 'a'\n[[network]]\nname = 'a'", "comes twice"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_an_error_before_any_time_is_spent(
    plan: str, complaint: str, tmp_path: Path
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(f"[[network]]\n{plan}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=complaint):
        gpu.read_plan(file, {"name": "", "seed": 0})
