"""From a trained network to the ONNX graph that is served: BatchNorm folded, then int8.

Standardising and the head (a 1×1 convolution that gives the evidence, its pooling and the bias)
stay in fp32, so that ``logit = log(mean(exp(evidence))) + bias`` holds in int8 too. Which nodes
int8 computes is read off the graph, in one place (``_nodes_for_int8``).

Does not: decide whether the result is good enough (``export`` does).
"""

from __future__ import annotations

import copy
import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from chestxray.inference.network import INPUT, OUTPUTS, OnnxNetwork
from chestxray.learning.networks import BasicBlock, Bottleneck, Network, ResNet

HEAD_BIAS = "fc.bias"
CONVOLUTIONAL = ("Conv", "Add", "MaxPool", "Relu")


def fold_batch_norm(network: Network) -> Network:
    """A copy in eval mode whose convolutions have swallowed the BatchNorm behind them."""
    folded = copy.deepcopy(network).cpu().eval()
    for module in list(folded.modules()):
        if isinstance(module, ResNet | BasicBlock | Bottleneck):
            for number in "123":
                if hasattr(module, f"bn{number}"):
                    _fold(module, f"conv{number}", f"bn{number}")
        if isinstance(module, BasicBlock | Bottleneck) and module.downsample is not None:
            _fold(module.downsample, "0", "1")
    return folded


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    conv, bn = module.get_submodule(convolution), module.get_submodule(norm)
    assert isinstance(conv, nn.Conv2d)  # noqa: S101 - for the type checker
    assert isinstance(bn, nn.BatchNorm2d)  # noqa: S101
    module.set_submodule(convolution, fuse_conv_bn_eval(conv, bn))
    module.set_submodule(norm, nn.Identity())


def to_onnx(network: Network, side_px: int) -> bytes:
    """The network in fp32 as ONNX: ``input`` (N, 1, S, S) → logit, evidence and features."""
    example = torch.zeros(2, 1, side_px, side_px)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
        warnings.simplefilter("ignore")  # PyTorch's exporter deprecates parts of itself
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, we do not
        program = torch.onnx.export(
            fold_batch_norm(network),
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
        assert program is not None  # noqa: S101 - it is None only for the exporter before dynamo
        file = Path(folder) / "model.onnx"
        program.save(file, external_data=False)
        model = onnx.load(file)
    _strip_addresses(model)
    return bytes(model.SerializeToString())


def _strip_addresses(model: onnx.ModelProto) -> None:
    """Drop what the exporter notes of its own stack: file names of this machine, twice the size."""
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
    del model.metadata_props[:]
    del model.graph.metadata_props[:]


def quantise(model: bytes, inputs: NDArray[np.float32]) -> bytes:
    """fp32 ONNX → int8 (QDQ, static, per channel), its ranges taken from ``inputs`` (N, 1, S, S).

    Weights use 7 of 8 bits (``reduce_range``): processors without 8-bit dot products (VNNI) would
    saturate the sums otherwise and compute something else than those that have them.
    """
    nodes = _nodes_for_int8(onnx.load(io.BytesIO(model)).graph)
    with tempfile.TemporaryDirectory() as folder, _no_advice():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model)
        quantize_static(
            source,
            target,
            _Inputs(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=sorted({node.op_type for node in nodes}),
            nodes_to_quantize=[node.name for node in nodes],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
        )
        return _correct_bias(target.read_bytes(), model, inputs)


def _nodes_for_int8(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """What int8 computes of a graph; the rest stays as it is.

    Of a transformer, the products of patches with weights: nearly all of the work, while softmax,
    LayerNorm and the sum that all blocks add to need their precision. Of a ResNet, everything
    between standardising and the head, and of one with bottlenecks from its third stage on.
    """
    weights = {tensor.name for tensor in graph.initializer}
    products = [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    if products:
        return products
    types = [node.op_type for node in graph.node]
    # In ResNet-50 what is rounded early grows through as many as 13 blocks of three layers.
    begin = "layer3." if "layer1.0.conv3.weight" in weights else "conv1."
    convolved = [next(iter(node.input[1:]), "") for node in graph.node]
    first = next(i for i, name in enumerate(convolved) if name.startswith(begin))
    last_relu = len(types) - 1 - types[::-1].index("Relu")
    body = graph.node[first : last_relu + 1]
    return [node for node in body if node.op_type in CONVOLUTIONAL]


def _correct_bias(int8: bytes, fp32: bytes, inputs: NDArray[np.float32]) -> bytes:
    """Take the mean error in logit, which rounding makes, out of the head's bias.

    Nagel et al. 2019 (arXiv 1906.04721) correct every layer's bias; the head's is the one that
    moves all logits the same way.
    """
    error = OnnxNetwork(int8)(inputs).logit - OnnxNetwork(fp32)(inputs).logit
    graph = onnx.load(io.BytesIO(int8))
    (bias,) = [tensor for tensor in graph.graph.initializer if tensor.name == HEAD_BIAS]
    corrected = onnx.numpy_helper.to_array(bias) - error.mean()
    bias.CopyFrom(onnx.numpy_helper.from_array(corrected.astype(np.float32), HEAD_BIAS))
    return bytes(graph.SerializeToString())


@contextmanager
def _no_advice() -> Iterator[None]:
    """ONNX Runtime tells the root logger to pre-process the graph; folding BatchNorm did it."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class _Inputs(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime is not typed
    def __init__(self, inputs: NDArray[np.float32]) -> None:
        self._batches: Iterator[NDArray[np.float32]] = iter(np.split(inputs, len(inputs)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._batches, None)
        return None if batch is None else {INPUT: batch}
