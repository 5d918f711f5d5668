"""What one pass of ResNet-18 takes: int8 against fp32, ONNX Runtime's options, PyTorch.

    .venv/bin/python benchmarks/inference.py

The graphs come from the same network with random weights (time does not depend on them) through
the export's own code. Unless a row says otherwise, on one core.

Does not: decode (``decoding``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np
import onnxruntime as ort
import torch
from machine import CORES
from measurement import Row, in_turns
from radiographs import Radiographs
from table import run

from chestxray import imaging
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference.network import INPUT
from chestxray.learning.graph import quantise, to_onnx
from chestxray.learning.networks import resnet18

SECONDS = 1.0
"""For each case in a round."""

SIDE_PX = 224


def measure(_: Sequence[Radiographs], *, rounds: int, seconds: float) -> list[Row]:
    """A row for each way to run the network on one input."""
    torch.manual_seed(0)
    network = resnet18().eval()
    inputs = np.stack(
        [
            imaging.to_input(synthetic_radiograph(s), side_px=SIDE_PX, mean=0.449, std=0.226)
            for s in range(16)
        ]
    )
    fp32 = to_onnx(network, SIDE_PX)
    int8 = quantise(fp32, inputs)
    threads = torch.get_num_threads()

    def in_onnx_runtime(model: bytes, **options: object) -> Callable[[], object]:
        running, each = _session(model, **options), cycle(inputs)
        return lambda: running.run(None, {INPUT: next(each)[None]})

    def in_pytorch(threads: int) -> Callable[[], object]:
        each = cycle(torch.from_numpy(inputs))

        def call() -> None:
            torch.set_num_threads(threads)
            with torch.inference_mode():
                network(next(each)[None])

        return call

    cases = {
        "ONNX Runtime, int8": in_onnx_runtime(int8),
        "ONNX Runtime, fp32": in_onnx_runtime(fp32),
        f"ONNX Runtime, int8, {CORES} cores": in_onnx_runtime(int8, intra_op_num_threads=CORES),
        "ONNX Runtime, int8, no memory arena": in_onnx_runtime(int8, enable_cpu_mem_arena=False),
        "PyTorch eager, fp32": in_pytorch(1),
        f"PyTorch eager, fp32, {CORES} cores": in_pytorch(CORES),
    }
    laps = in_turns(cases, rounds=rounds, seconds=seconds)
    torch.set_num_threads(threads)
    base = min(laps["ONNX Runtime, int8"].wall_s)
    return [
        laps[case].row(
            "inference",
            case,
            f"one input of {SIDE_PX} px",
            note=f"fastest pass {min(laps[case].wall_s) / base:.2f} × int8's",
        )
        for case in cases
    ]


def _session(model: bytes, **changed: object) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    for name, value in changed.items():
        setattr(options, name, value)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    run(measure, __doc__, seconds=SECONDS)
