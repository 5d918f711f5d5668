"""A quarter of an hour on a GPU: one file of pictures, one command that learns from it.

  benchmarks/gpu.py pack CONFIG --data DIR ... --boxes FILE --lungs FILE ... --init FILE --out FILE
  benchmarks/gpu.py learn FILE --out DIR --seconds 540
  benchmarks/gpu.py run DIR NAME --data DIR ... --out RUN

``pack`` and ``run`` are for the machine that has the data. ``learn`` needs PyTorch, NumPy and
Pillow alone, and makes no other choice than the plan (``gpu_plan.toml``): networks one after the
other, each with its part of the time. As each ends, its EMA weights are written in half precision,
and its figures on held-out pictures. One that fails stops no other; called again, ``learn`` goes
on with those that are missing. ``run`` makes of the weights of one of them the folder of a run, as
``chestxray export`` takes it.

Does not: choose what ships. The plan says by which rule that is done, on the bundle.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional

from chestxray.dataset import Sample
from chestxray.errors import ChestXrayError, ConfigError, DatasetError
from chestxray.evaluation.metrics import auroc
from chestxray.learning.augmentation import Augmenter, Batch
from chestxray.learning.draws import Draws
from chestxray.learning.learner import Learner
from chestxray.learning.networks import NETWORKS, Network
from chestxray.learning.pictures import BLACK, BOXES_PX, Levels, Pictures
from chestxray.learning.processes import ALONE
from chestxray.learning.sampling import Sampler, strata_of

PLAN = Path(__file__).with_name("gpu_plan.toml")
FIGURES = "figures.json"

PACKED_AS_FOR_PX = 147
"""A recipe for so many pixels keeps its pictures at 176 px. With JPEG of QUALITY, 10,000 of them
and the first weights take less than 40 MB."""
QUALITY = 70
INITIAL = "initial "
"""Before the names of the weights that learning begins with."""

OF_THE_PLAN = {"seconds", "teachers", "learning_rate_of", "leave_out"}
"""What the plan says of a network beside keys of the recipe."""
WARMUP = 0.05
"""Share of a network's time in which the learning rate rises."""
TICKS = 100_000
"""The learning rate follows the clock, so that a network ends in time at whatever speed."""
JUDGED_WITHIN_S = 10.0
JUDGED_AT_ONCE = 256
STEPS_BEFORE, BARE_STEPS = 3, 30
PART_BYTES = 15 << 20
"""Of weights in one file, as machines for rent bound what comes back."""


# The file of pictures.


@dataclass(frozen=True, slots=True)
class Packed:
    """What ``pack`` wrote: pictures on the device, those to learn from first, ``n_train`` of them.

    ``samples`` say of each its truth, source, view and group, and nothing of the patient or file.
    """

    config: dict[str, Any]
    samples: list[Sample]
    pictures: Pictures
    n_train: int
    initial: dict[str, Tensor]
    about: dict[str, Any]
    """Of which data, and which first weights."""


def pack(arguments: argparse.Namespace) -> None:
    # What the GPU's machine need not have.
    from chestxray.dataset import read_dataset, split_heldout  # noqa: PLC0415
    from chestxray.learning.config import read_config  # noqa: PLC0415
    from chestxray.learning.initialise import (  # noqa: PLC0415
        describe_weights,
        initialise,
        read_weights,
    )
    from chestxray.learning.inputs import (  # noqa: PLC0415
        data_sha256,
        read_pictures,
        read_where,
    )

    config = read_config(arguments.config)
    samples = read_dataset(arguments.data, config.finding.labels)
    split = split_heldout(samples, config.heldout, config.seed, config.heldout_of)
    listed = [*split.train, *split.heldout]
    smaller = config.model_copy(update={"side_px": PACKED_AS_FOR_PX})
    where = read_where(samples, config, arguments.boxes, arguments.lungs)
    pictures = read_pictures(listed, smaller, torch.device("cpu"), where)
    with ThreadPoolExecutor(config.threads) as pool:
        files = list(pool.map(_to_jpeg, pictures.levels.numpy()))
    about = {"data_sha256": data_sha256(samples), "initialised_from": "random"}
    initial = {}
    if arguments.init:
        network = NETWORKS[config.network]()
        fitting = initialise(network, read_weights(arguments.init)).loaded
        initial = {name: network.state_dict()[name] for name in fitting}
        about["initialised_from"] = describe_weights(arguments.init)
    np.savez_compressed(
        arguments.out,
        config=json.dumps(config.model_dump(mode="json")),
        about=json.dumps(about),
        samples=json.dumps([[s.truth, s.positive, s.source, s.view, s.group] for s in listed]),
        n_train=len(split.train),
        jpeg=np.frombuffer(b"".join(files), np.uint8),
        ends=np.cumsum([len(file) for file in files]),
        lungs=_to_bits(_resized(pictures.lungs, BOXES_PX)),
        boxes=_to_bits(pictures.boxes),
        knows_lungs=pictures.knows_lungs.numpy(),
        knows_boxes=pictures.knows_boxes.numpy(),
        lungs_only=pictures.lungs_only.numpy(),
        **{INITIAL + name: _to_half(tensor) for name, tensor in initial.items()},
    )
    print(f"{len(listed)} pictures, {arguments.out.stat().st_size / 1e6:.1f} MB")


def unpack(file: Path, device: torch.device) -> Packed:
    """Decode all pictures, and put them on ``device``."""
    facts = dict(np.load(file))
    with ThreadPoolExecutor() as pool:
        levels = np.stack(list(pool.map(_of_jpeg, np.split(facts["jpeg"], facts["ends"][:-1]))))
    config = json.loads(str(facts["config"]))
    samples = [
        _sample(number, *told) for number, told in enumerate(json.loads(str(facts["samples"])))
    ]
    strata = strata_of(samples, SimpleNamespace(**config))
    number = {stratum: i for i, stratum in enumerate(sorted(set(strata)))}
    grey, only = torch.from_numpy(levels).to(device), torch.from_numpy(facts["lungs_only"])
    lungs = _resized(_of_bits(facts["lungs"]).to(device), levels.shape[-1])
    lungs[only] = (grey[only] > BLACK).byte() * 255
    of_all = {
        "levels": grey,
        "targets": torch.tensor([float(sample.positive) for sample in samples]),
        "lungs": lungs,
        "knows_lungs": torch.from_numpy(facts["knows_lungs"]),
        "boxes": _of_bits(facts["boxes"]),
        "knows_boxes": torch.from_numpy(facts["knows_boxes"]),
        "lungs_only": only,
        "strata": torch.tensor([number[stratum] for stratum in strata]),
    }
    return Packed(
        config=config,
        samples=samples,
        pictures=Pictures(**{name: part.to(device) for name, part in of_all.items()}),
        n_train=int(facts["n_train"]),
        initial={
            name.removeprefix(INITIAL): _of_half(array)
            for name, array in facts.items()
            if name.startswith(INITIAL)
        },
        about=json.loads(str(facts["about"])),
    )


def _to_jpeg(levels: Levels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "JPEG", quality=QUALITY, optimize=True, progressive=True)
    return file.getvalue()


def _of_jpeg(file: NDArray[np.uint8]) -> Levels:
    return np.asarray(Image.open(io.BytesIO(file.tobytes())))


def _to_bits(maps: Tensor) -> NDArray[np.uint8]:
    return np.packbits(maps.numpy() > 127, axis=-1)


def _of_bits(bits: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.unpackbits(bits, axis=-1) * 255)


def _resized(maps: Tensor, side_px: int) -> Tensor:
    """uint8 (N, K, K) → (N, side_px, side_px); some at a time, which bounds the memory."""
    size = (side_px, side_px)
    return torch.cat(
        [
            functional.interpolate(some[:, None].float(), size, mode="bilinear", antialias=True)
            .round()
            .byte()[:, 0]
            for some in torch.split(maps, JUDGED_AT_ONCE)
        ]
    )


def _sample(
    number: int, truth: str, positive: bool, source: str, view: str | None, group: str | None
) -> Sample:
    return Sample(
        path=str(number),
        file=Path(),
        truth=truth,
        positive=positive,
        subject=str(number),
        sha256="",
        source=source,
        view=view,
        groups={"group": group} if group else {},
    )


# The plan.


def read_plan(file: Path, config: dict[str, Any]) -> list[dict[str, Any]]:
    """What to learn, one network after the other: keys of ``config`` and of ``OF_THE_PLAN``.

    Raises:
        ConfigError: a key is unknown, a name comes twice, or a network needs a later one.
    """
    told = tomllib.loads(file.read_text(encoding="utf-8"))
    networks = told.pop("network")
    plan = [told | entry for entry in networks]
    earlier: set[str] = set()
    for entry in plan:
        name = entry["name"]
        if unknown := entry.keys() - config.keys() - OF_THE_PLAN:
            raise ConfigError(f"{name}: unknown: {', '.join(sorted(unknown))}")
        needed = {*entry.get("teachers", ()), *entry.get("learning_rate_of", ())}
        if not needed <= earlier or name in earlier:
            raise ConfigError(f"{name}: comes twice, or before one that it needs")
        earlier.add(name)
    return plan


def settled(entry: dict[str, Any], config: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """``entry`` with the learning rate of the best trial, and with the teachers that there are.

    The best is the one of the greatest ``mean_auroc``.
    """
    there = {name: figures for name, figures in found.items() if "failed" not in figures}
    trials = [there[name] for name in entry.get("learning_rate_of", ()) if name in there]
    best = max(trials, key=lambda figures: figures["mean_auroc"], default={"recipe": {}})
    rate = best["recipe"].get("learning_rate") or entry.get("learning_rate")
    return entry | {
        "learning_rate": rate or config["learning_rate"],
        "teachers": [name for name in entry.get("teachers", ()) if name in there],
    }


def recipe_of(entry: dict[str, Any], config: dict[str, Any], device: torch.device) -> Any:
    """A ``TrainConfig`` without pydantic: what ``entry`` does not say is as in ``config``."""
    facts = config | {key: value for key, value in entry.items() if key in config}
    sections = {name: SimpleNamespace(**facts[name]) for name in ("augmentation", "evidence")}
    compiled = facts["compile"] and device.type == "cuda"
    one_epoch = {"epochs": 1, "warmup_epochs": WARMUP, "compile": compiled}
    return SimpleNamespace(**facts | sections | one_epoch)


# Learning.


def learn(arguments: argparse.Namespace) -> None:
    ends = time.monotonic() + arguments.seconds - JUDGED_WITHIN_S
    device = ALONE.device
    packed = unpack(arguments.pack, device)
    plan = read_plan(arguments.plan, packed.config)
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {}
    if (out / FIGURES).is_file():
        found = json.loads((out / FIGURES).read_text(encoding="utf-8"))["networks"]
    for planned in plan:
        name = planned["name"]
        known = "failed" not in found.get(name, {"failed": "not tried"})
        # With less than half of its time a network would be another one.
        if known or ends - time.monotonic() < planned["seconds"] / 2:
            continue
        entry = settled(planned, packed.config, found)
        try:
            found[name] = _learn_one(entry, packed, found, ends, out) | {"recipe": entry}
        except Exception as exc:  # noqa: BLE001 - time is short, and the next may do better
            found[name] = {"failed": f"{type(exc).__name__}: {exc}", "recipe": entry}
        told = packed.about | {"config": packed.config, "networks": found}
        (out / FIGURES).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(json.dumps({name: found[name]}), flush=True)


def _learn_one(
    entry: dict[str, Any], packed: Packed, found: dict[str, Any], ends: float, out: Path
) -> dict[str, Any]:
    """Learn one network, write its weights, and return its figures."""
    device = packed.pictures.levels.device
    recipe = recipe_of(entry, packed.config, device)
    teachers = []
    for name in entry["teachers"]:
        of_teacher = recipe_of(found[name]["recipe"], packed.config, device)
        teacher = NETWORKS[of_teacher.network]()
        teacher.load_state_dict(read_weights(out, name))
        teacher.to(device, memory_format=torch.channels_last)
        teachers.append((teacher.eval(), of_teacher.side_px))
    left_out, learnable = set(entry.get("leave_out", ())), packed.samples[: packed.n_train]
    if unknown := left_out - {sample.source for sample in learnable}:
        raise ConfigError(f"nothing to learn from is of the source {min(unknown)}")
    chosen = [i for i, sample in enumerate(learnable) if sample.source not in left_out]
    network, figures = learnt(recipe, packed, chosen, teachers, (entry["seconds"], ends))
    write_weights(out, entry["name"], network)
    sources = {packed.samples[i].source for i in chosen}
    return figures | judged(network, recipe, packed, sources)


def learnt(
    recipe: Any,
    packed: Packed,
    chosen: Sequence[int],
    teachers: Sequence[tuple[Network, int]],
    time_s: tuple[float, float],
) -> tuple[Network, dict[str, Any]]:
    """The EMA of a network that learns from the ``chosen`` pictures, and how fast that went.

    ``teachers`` come with the size of their inputs. ``time_s`` is how long to learn once all is
    compiled, and when to stop by the monotonic clock.

    Raises:
        TimeoutError: less than half of that time is left.
    """
    device = packed.pictures.levels.device
    batches = _batches(recipe, packed, chosen)
    if recipe.compile:
        torch.compiler.reset()  # or only the first eight networks would be compiled
    torch.manual_seed(recipe.seed)
    network = NETWORKS[recipe.network]()
    if recipe.network == packed.config["network"]:
        network.load_state_dict(packed.initial, strict=False)
    network.to(device, memory_format=torch.channels_last)
    n_strata = int(packed.pictures.strata.max()) + 1
    learner = Learner(network, recipe, steps_per_epoch=TICKS, n_strata=n_strata)

    bare = {}
    if device.type == "cuda":
        bare = {"bare_pictures_per_s": round(_bare_per_s(learner, next(batches)))}
    began = time.monotonic()
    seconds = min(time_s[0], time_s[1] - began)
    if seconds < time_s[0] / 2:
        raise TimeoutError("compiling left less than half of its time")
    n_steps, loss = 0, torch.zeros((), device=device)
    while (share := (time.monotonic() - began) / seconds) < 1:
        batch = next(batches)
        targets = _targets(batch, teachers, recipe)
        loss += learner.step(batch, targets, 0, int(share * TICKS))
        n_steps += 1
    train_loss = float(loss) / n_steps
    took_s = time.monotonic() - began
    n = n_steps * recipe.batch_size
    return learner.ema, bare | {
        "n_steps": n_steps,
        "pictures": n,
        "seconds": round(took_s, 1),
        "pictures_per_s": round(n / took_s),
        "train_loss": round(train_loss, 4),
    }


def _batches(recipe: Any, packed: Packed, chosen: Sequence[int]) -> Iterator[Batch]:
    """Epoch after epoch; what is left over at the end of one is not used."""
    if len(chosen) < recipe.batch_size:
        raise ConfigError("there are fewer pictures than batch_size")
    device = packed.pictures.levels.device
    rows = torch.tensor(chosen, device=device)
    parts = {field.name: getattr(packed.pictures, field.name)[rows] for field in fields(Pictures)}
    augmenter = Augmenter(Pictures(**parts), recipe.augmentation)
    sampler = Sampler([packed.samples[i] for i in chosen], recipe)
    for epoch in count():
        order = torch.from_numpy(sampler.order(epoch)).to(device)
        for step in range(len(order) // recipe.batch_size):
            indices = order[step * recipe.batch_size :][: recipe.batch_size]
            draws = Draws((recipe.seed, epoch, step), recipe.batch_size, device)
            yield augmenter(indices, draws, recipe.side_px)


def _bare_per_s(learner: Learner, batch: Batch) -> float:
    """Pictures a second of steps on one batch, of which the first ones compile; the learning rate
    is that of the very beginning."""
    began = 0.0
    for number in range(STEPS_BEFORE + BARE_STEPS):
        if number == STEPS_BEFORE:
            torch.cuda.synchronize()
            began = time.monotonic()
        learner.step(batch, batch.targets, 0, 0)
    torch.cuda.synchronize()
    return BARE_STEPS * len(batch.targets) / (time.monotonic() - began)


def _targets(batch: Batch, teachers: Sequence[tuple[Network, int]], recipe: Any) -> Tensor:
    truth = batch.targets * (1 - recipe.label_smoothing) + recipe.label_smoothing / 2
    if not teachers:
        return truth
    said = [_said(teacher, side_px, batch.pixels, recipe) for teacher, side_px in teachers]
    return torch.lerp(truth, torch.stack(said).mean(0), recipe.teacher_weight)


@torch.no_grad()
def _said(teacher: Network, side_px: int, pixels: Tensor, recipe: Any) -> Tensor:
    """A teacher's probability (B,), the mean over the picture and its mirror image."""
    if pixels.shape[-1] != side_px:
        pixels = functional.interpolate(pixels, (side_px, side_px), mode="bilinear")
    both = (torch.cat([pixels, pixels.flip(3)]) - recipe.mean) / recipe.std
    both = both.contiguous(memory_format=torch.channels_last)
    with torch.autocast(both.device.type, torch.bfloat16, enabled=both.is_cuda):
        logit = teacher(both).logit
    return logit.float().sigmoid().view(2, -1).mean(0)


# Judging.


@torch.no_grad()
def judged(network: Network, recipe: Any, packed: Packed, learned_from: set[str]) -> dict[str, Any]:
    """Figures on held-out whole pictures, as they are.

    ``auroc`` of all, of every source and of every view in it, where both truths are; their
    ``mean_auroc`` over sources that were ``learned_from``; ``pointing``, the share of pictures with
    boxes whose greatest evidence lies in one, and what the best fixed point would reach.
    """
    pictures, n_train = packed.pictures, packed.n_train
    logits, maps = [], []
    size = (recipe.side_px, recipe.side_px)
    for levels in torch.split(pictures.levels[n_train:], JUDGED_AT_ONCE):
        pixels = functional.interpolate(
            levels[:, None].float() / 255, size, mode="bicubic", antialias=True
        )
        answer = network((pixels.clamp(0, 1) - recipe.mean) / recipe.std)
        logits.append(answer.logit)
        maps.append(answer.evidence)
    logit, evidence = torch.cat(logits).double().cpu().numpy(), torch.cat(maps)
    samples = packed.samples[n_train:]
    whole = ~pictures.lungs_only[n_train:]
    kinds: dict[str, list[int]] = {"all": []}
    for row in whole.nonzero()[:, 0].tolist():
        source, view = samples[row].source, samples[row].view
        for kind in ("all", source, *([f"{source} {view}"] if view else [])):
            kinds.setdefault(kind, []).append(row)
    of_kind: dict[str, float] = {}
    for kind, rows in kinds.items():
        positive = np.array([samples[row].positive for row in rows], dtype=bool)
        if 0 < positive.sum() < len(rows):
            of_kind[kind] = round(float(auroc(positive, logit[rows])), 4)
    counted = [value for kind, value in of_kind.items() if kind in learned_from]
    found = {"auroc": of_kind, "mean_auroc": sum(counted) / max(1, len(counted))}
    boxed = pictures.knows_boxes[n_train:] & whole
    if boxed.any():
        size = (BOXES_PX, BOXES_PX)
        enlarged = functional.interpolate(evidence[boxed][:, None], size, mode="bilinear")
        inside = pictures.boxes[n_train:][boxed].flatten(1) > 127
        peaks = enlarged.flatten(1).argmax(1, keepdim=True)
        found["pointing"] = round(float(inside.gather(1, peaks).float().mean()), 4)
        found["best_fixed_point"] = round(float(inside.float().mean(0).max()), 4)
        found["n_boxed"] = int(boxed.sum())
    return found


# Weights.


def write_weights(out: Path, name: str, network: Network) -> None:
    """``NAME.1.npz``, ``NAME.2.npz``, …, none larger than PART_BYTES, in half precision."""
    parts: list[dict[str, NDArray[Any]]] = [{}]
    n_bytes = 0
    for key, tensor in network.state_dict().items():
        array = _to_half(tensor)
        n_bytes += array.nbytes
        if n_bytes > PART_BYTES:
            parts.append({})
            n_bytes = array.nbytes
        parts[-1][key] = array
    for number, part in enumerate(parts, start=1):
        np.savez_compressed(out / f"{name}.{number}.npz", **part)


def read_weights(out: Path, name: str) -> dict[str, Tensor]:
    """What ``write_weights`` wrote, in single precision."""
    files = sorted(out.glob(f"{name}.[0-9].npz"))
    return {key: _of_half(array) for file in files for key, array in np.load(file).items()}


def _to_half(tensor: Tensor) -> NDArray[Any]:
    """Counts stay what they are."""
    return (tensor.half() if tensor.is_floating_point() else tensor).cpu().numpy()


def _of_half(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.float() if tensor.is_floating_point() else tensor


def make_run(arguments: argparse.Namespace) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415

    from chestxray.dataset import read_dataset, split_heldout, write_split  # noqa: PLC0415
    from chestxray.learning.config import TrainConfig  # noqa: PLC0415
    from chestxray.learning.initialise import WEIGHTS_FILE  # noqa: PLC0415
    from chestxray.learning.inputs import data_sha256  # noqa: PLC0415

    told = json.loads((arguments.learned / FIGURES).read_text(encoding="utf-8"))
    figures = told["networks"].get(arguments.name, {"failed": "there is no such network"})
    if "failed" in figures:
        raise ConfigError(f"{arguments.name}: {figures['failed']}")
    entry = figures["recipe"]
    if entry.get("leave_out"):
        raise ConfigError(f"{arguments.name} did not learn from all that the split says")
    config = TrainConfig.model_validate(told["config"])
    samples = read_dataset(arguments.data, config.finding.labels)
    if data_sha256(samples) != told["data_sha256"]:
        raise DatasetError("these are not the data that were packed")
    split = split_heldout(samples, config.heldout, config.seed, config.heldout_of)
    epochs = max(1, round(figures["pictures"] / len(split.train)))
    # The seed stays the one that the split is made by; the network's own is in the entry.
    changed = {k: v for k, v in entry.items() if k in told["config"] and k not in {"name", "seed"}}
    side_px = changed.get("side_px", config.side_px)
    changed |= {"stages": [{"epochs": epochs, "side_px": side_px}]}
    changed |= {"warmup_epochs": WARMUP * epochs}
    learned = TrainConfig.model_validate(told["config"] | changed)
    row = {
        "epoch": epochs,
        "side_px": side_px,
        "learning_rate": 0.0,
        "train_loss": figures["train_loss"],
        "heldout_auroc": figures["auroc"].get("all"),
        "wall_s": figures["seconds"],
        "images_per_s": figures["pictures_per_s"],
    }
    begun_with = told["initialised_from"] if learned.network == config.network else "random"
    by_what = f"{begun_with}; learnt by benchmarks/gpu.py as {json.dumps(entry)}"
    of_run = {"config": learned.model_dump(mode="json"), "initialised_from": by_what}
    out: Path = arguments.out
    out.mkdir(parents=True)
    write_split(split, out / "split.json")
    (out / "config.json").write_text(json.dumps(of_run, indent=1) + "\n", encoding="utf-8")
    (out / "metrics.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    weights = read_weights(arguments.learned, arguments.name)
    save_file({key: tensor.contiguous() for key, tensor in weights.items()}, out / WEIGHTS_FILE)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    packing = commands.add_parser("pack", help="pictures and what is known of them, in one file")
    packing.add_argument("config", type=Path, help="the recipe, as `chestxray train` takes it")
    packing.add_argument("--data", type=Path, action="append", required=True)
    packing.add_argument("--boxes", type=Path)
    packing.add_argument("--lungs", type=Path, action="append", default=[])
    packing.add_argument("--init", type=Path, help="first weights of the recipe's network")
    packing.add_argument("--out", type=Path, required=True, help="an .npz")
    packing.set_defaults(do=pack)
    learning = commands.add_parser("learn", help="learn the networks of the plan")
    learning.add_argument("pack", type=Path)
    learning.add_argument("--plan", type=Path, default=PLAN)
    learning.add_argument("--seconds", type=float, default=540.0, help="in which all must end")
    learning.add_argument("--out", type=Path, required=True, help="folder of weights and figures")
    learning.set_defaults(do=learn)
    running = commands.add_parser("run", help="make a run of the weights of one network")
    running.add_argument("learned", type=Path, help="the folder that `learn` wrote")
    running.add_argument("name", help="of the network")
    running.add_argument("--data", type=Path, action="append", required=True)
    running.add_argument("--out", type=Path, required=True, help="the folder of the run")
    running.set_defaults(do=make_run)
    parsed = parser.parse_args(arguments)
    try:
        parsed.do(parsed)
    except ChestXrayError as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
