"""Which network to choose: quality, size and speed of the four, by one short recipe for all.

    .venv/bin/python benchmarks/networks.py               # all
    .venv/bin/python benchmarks/networks.py --only speed

*quality*: each network trained as configs/networks.toml says, from random weights, and exported;
then the smallest once more with the largest ResNet as its teacher. Runs stay in ``--runs`` and are
gone on with.
*speed*: one pass on one core, in int8 and fp32, at 224 px; on a GPU, where there is one, in PyTorch
and bf16. Time does not depend on the weights: they are random.

Does not: find each network's best: with published weights or a GPU's patience all would be better.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks_page
import numpy as np
import page as pages
import torch
from machine import REPOSITORY
from measurement import in_turns
from radiographs import SHARED
from reliability import write_section

from chestxray import imaging
from chestxray.dataset import read_dataset
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import Manifest, OnnxNetwork
from chestxray.learning.config import TrainConfig, read_config
from chestxray.learning.export import export
from chestxray.learning.graph import quantise, to_onnx
from chestxray.learning.networks import NETWORKS
from chestxray.learning.training import train

REPORT = REPOSITORY / "docs" / "reports" / "networks.json"
RECIPE = REPOSITORY / "configs" / "networks.toml"
STUDENT, TEACHER = "resnet18", "resnet50"
SIDE_PX = 224
ROUNDS, SECONDS = 5, 2.0
GPU_BATCH = 64


def quality(data: Path, runs: Path, *, quick: bool) -> dict[str, Any]:
    """The figures of each network's bundle on held-out subjects and on adults."""
    recipe = read_config(RECIPE)
    labels = recipe.finding.labels
    samples = read_dataset(data / "chest_xray" / "train", labels)
    adults = read_dataset(data / "adults", labels)

    def trained(name: str, **changes: Any) -> dict[str, Any]:
        told = {"name": name, **changes}
        if quick:
            told["stages"] = recipe.model_dump()["stages"][:1]
        config = TrainConfig.model_validate(recipe.model_dump() | told)
        run = train(config, samples, runs / name)
        manifest = export(run, runs / name / "bundle", external={"adults": adults})
        return _figures(manifest) | {"network": config.network, "taught_by": changes.get("teacher")}

    found = [trained(name, network=name) for name in NETWORKS]
    teacher = str(runs / TEACHER / "bundle")
    found.append(trained(f"{STUDENT}-taught", network=STUDENT, teacher=[teacher]))
    found[-1]["taught_by"] = TEACHER
    return {"recipe": str(RECIPE.relative_to(REPOSITORY)), "side_px": recipe.side_px, "runs": found}


def _figures(manifest: Manifest) -> dict[str, Any]:
    held, adults = manifest.metrics
    kept = ("n", "n_subjects")
    return {
        "heldout": {key: held[key] for key in kept} | held["operating_points"]["balanced"],
        "adults": {key: adults[key] for key in kept} | adults["operating_points"]["balanced"],
        "parity": manifest.training["parity"],
    }


def speed(data: Path, runs: Path, *, quick: bool) -> dict[str, Any]:  # noqa: ARG001
    """Parameters, size and time of a pass of each network."""
    rounds, seconds = (1, 0.2) if quick else (ROUNDS, SECONDS)
    inputs = np.stack(
        [
            imaging.to_input(synthetic_radiograph(s), side_px=SIDE_PX, mean=0.449, std=0.226)
            for s in range(16)
        ]
    )
    found, cases = {}, {}
    for name, make in NETWORKS.items():
        torch.manual_seed(0)
        network = make().eval()
        fp32 = to_onnx(network, SIDE_PX)
        for precision, model in {"fp32": fp32, "int8": quantise(fp32, inputs)}.items():
            found[name, precision] = {"size_mb": len(model) / 1e6}
            cases[name, precision] = _pass(OnnxNetwork(model), inputs[:1])
        parameters = sum(p.numel() for p in network.parameters())
        found[name, "fp32"]["parameters"] = parameters
    laps = in_turns(cases, rounds=rounds, seconds=seconds)
    rows = []
    for name in NETWORKS:
        row: dict[str, Any] = {"network": name, "parameters": found[name, "fp32"]["parameters"]}
        for precision in ("int8", "fp32"):
            row[precision] = {
                "size_mb": found[name, precision]["size_mb"],
                "p50_ms": float(np.median(laps[name, precision].wall_s)) * 1000,
            }
        row["gpu_ms"] = _on_gpu(name) if torch.cuda.is_available() else None
        rows.append(row)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {"side_px": SIDE_PX, "rows": rows, "gpu": gpu, "gpu_batch": GPU_BATCH}


def _pass(network: OnnxNetwork, one: np.ndarray) -> Callable[[], object]:
    return lambda: network(one)


def _on_gpu(name: str) -> float:
    """Milliseconds an image, in batches of ``GPU_BATCH``, the images there already."""
    network = NETWORKS[name]().eval().cuda().to(memory_format=torch.channels_last)
    batch = torch.randn(GPU_BATCH, 1, SIDE_PX, SIDE_PX, device="cuda")
    n = 50
    with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
        for turn in range(2 * n):
            if turn == n:
                torch.cuda.synchronize()
                begun = time.perf_counter()
            network(batch)
        torch.cuda.synchronize()
    return (time.perf_counter() - begun) / (n * GPU_BATCH) * 1000


PARTS: dict[str, Callable[..., dict[str, Any]]] = {part.__name__: part for part in (quality, speed)}


def main() -> None:
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--only", choices=PARTS, action="append", help="[all]")
    asked.add_argument("--out", type=Path, default=REPORT, help="JSON report to fill [committed]")
    asked.add_argument("--data", type=Path, default=SHARED, help="holds chest_xray and adults")
    asked.add_argument("--runs", type=Path, default=Path("runs/networks"), help="[runs/networks]")
    asked.add_argument("--quick", action="store_true", help="a short run, to try the programs")
    given = asked.parse_args()
    for name in given.only or PARTS:
        begun = time.monotonic()
        found = PARTS[name](given.data, given.runs, quick=given.quick) | {"quick": given.quick}
        write_section(given.out, name, found, took_s=time.monotonic() - begun)
    report = json.loads(given.out.read_text(encoding="utf-8"))
    if set(report) >= set(PARTS):
        print(networks_page.networks(report))
    if given.out == REPORT:
        pages.write()


if __name__ == "__main__":
    main()
