"""The exported network, running in ONNX Runtime: inputs in, logit, evidence and features out.

The only place that knows ONNX Runtime's sessions and exceptions. Evidence and features are outputs
of the same pass as the logit; nothing is computed twice.

Does not: know a manifest, a probability or a label (``predictor`` does).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from chestxray.errors import BundleDamagedError
from chestxray.inference.onnx_file import check_self_contained

INPUT = "input"
OUTPUTS = ("logit", "evidence", "features")

CHUNK = 16
"""Inputs per pass: more gain no speed on a CPU and cost memory in the first layers."""

_SESSION_ERRORS = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class NetworkAnswers(NamedTuple):
    """What the network says of N inputs, before any calibration, all float32.

    ``logit`` (N,), ``evidence`` (N, h, w) with ``logit = log(mean(exp(evidence))) + bias``, and
    ``features`` (N, C), of the picture's layout.
    """

    logit: NDArray[np.float32]
    evidence: NDArray[np.float32]
    features: NDArray[np.float32]


class OnnxNetwork:
    """An ONNX model with the input and outputs that a bundle promises; thread-safe.

    ``threads`` is the number of cores one pass may use.

    Raises:
        BundleDamagedError: ``model`` is no model, has another input or other outputs, or weights
            that lie in another file.
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        check_self_contained(model)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.add_session_config_entry("session.load_model_format", "ONNX")  # what was checked
        options.log_severity_level = 3  # errors; what can go wrong is raised, and said in one line
        with _damage_reported():
            self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        inputs = {node.name: node.shape[1:] for node in self._session.get_inputs()}
        if list(inputs) != [INPUT]:
            raise BundleDamagedError(f"the model's inputs are {list(inputs)}, not {INPUT!r} alone")
        outputs = {node.name for node in self._session.get_outputs()}
        if not outputs.issuperset(OUTPUTS):
            raise BundleDamagedError(f"the model's outputs are {sorted(outputs)}, not {OUTPUTS}")
        self.input_shape: tuple[int | str, ...] = tuple(inputs[INPUT])
        """(1, side_px, side_px), of one input."""

    def __call__(self, inputs: NDArray[np.float32]) -> NetworkAnswers:
        """Inputs (N, 1, S, S) float32, N > 0, normalised as in training → the answers.

        Raises:
            BundleDamagedError: the model fails on them.
        """
        with _damage_reported():
            passes = [
                self._session.run(OUTPUTS, {INPUT: inputs[start : start + CHUNK]})
                for start in range(0, len(inputs), CHUNK)
            ]
            answers = NetworkAnswers(
                *(np.concatenate(parts) for parts in zip(*passes, strict=True))
            )
        if any(len(answer) != len(inputs) for answer in answers):
            raise BundleDamagedError("the model does not answer each input once")
        return answers


@contextmanager
def _damage_reported() -> Iterator[None]:
    try:
        yield
    except (*_SESSION_ERRORS, ValueError) as exc:  # its text may be no UTF-8, its shapes none
        first_line = str(exc).strip().partition("\n")[0]
        raise BundleDamagedError(f"the model does not run: {first_line}") from exc
