"""How much faster int8 is than fp32: ResNet-18 on one core, the two measured in turns in one run.

    .venv/bin/python benchmarks/inference.py

Both graphs come from the same network with random weights (time does not depend on them) through
the export's own code. The ratio is of the medians; the fastest pass is given beside them, since
other work on the machine only ever makes a pass slower.
"""

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from chestxray import imaging
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference.network import INPUT
from chestxray.learning.graph import quantise, to_onnx
from chestxray.learning.networks import resnet18

SIDE_PX = 224
N_PASSES = 150


def session(model: bytes) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def main() -> None:
    torch.manual_seed(0)
    inputs = np.stack(
        [
            imaging.to_input(synthetic_radiograph(s), side_px=SIDE_PX, mean=0.449, std=0.226)
            for s in range(16)
        ]
    )
    fp32 = to_onnx(resnet18(), SIDE_PX)
    models = {"fp32": fp32, "int8": quantise(fp32, inputs)}
    sessions = {name: session(model) for name, model in models.items()}
    passes_ms: dict[str, list[float]] = {name: [] for name in models}
    for index in range(N_PASSES):
        for name, running in sessions.items():
            started = time.perf_counter()
            running.run(None, {INPUT: inputs[index % len(inputs)][None]})
            passes_ms[name].append((time.perf_counter() - started) * 1000)

    print(
        f"ResNet-18, {SIDE_PX} px, one image, one core, {N_PASSES} passes in turns; {processor()}"
    )
    print(f"{'':6}{'size':>9}{'median':>10}{'fastest':>10}")
    for name, times in passes_ms.items():
        size_mb = len(models[name]) / 1e6
        print(f"{name:6}{size_mb:6.1f} MB{np.median(times):7.1f} ms{min(times):7.1f} ms")
    median = np.median(passes_ms["int8"]) / np.median(passes_ms["fp32"])
    fastest = min(passes_ms["int8"]) / min(passes_ms["fp32"])
    print(f"int8 / fp32: {median:.2f} of the median, {fastest:.2f} of the fastest")


def processor() -> str:
    """What decides int8's speed: whether the processor multiplies 8-bit numbers by itself."""
    flags = Path("/proc/cpuinfo")
    text = flags.read_text(encoding="utf-8") if flags.exists() else ""
    known = [flag for flag in ("avx2", "avx512f", "avx_vnni", "avx512_vnni") if f" {flag}" in text]
    return "processor has " + (", ".join(known) or "unknown instructions")


if __name__ == "__main__":
    main()
