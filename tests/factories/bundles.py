"""A tiny bundle that keeps every promise of a real one, made in milliseconds without PyTorch.

Its network is one strided convolution with random weights. It knows nothing of lungs; what it says
of a picture is arbitrary but repeatable.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from chestxray.imaging import to_input
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference.bundle import Manifest, Preprocessing, write_bundle
from chestxray.inference.input_check import fit_input_check
from chestxray.inference.polarity import fit_polarity

SIDE_PX = 64
CELL_PX = 8
N_FEATURES = 12
MEAN, STD = 0.5, 0.25
FINDING = {
    "negative": "NORMAL",
    "positive": "PNEUMONIA",
    "code": {"value": "233604007", "scheme": "SCT", "meaning": "Pneumonia"},
    "site": {"value": "39607008", "scheme": "SCT", "meaning": "Lung"},
}
OTHER_FINDING = {
    "negative": "DRY",
    "positive": "EFFUSION",
    "code": {"value": "60046008", "scheme": "SCT", "meaning": "Pleural effusion"},
    "site": None,
}
VALIDATION = {
    "dataset": "synthetic",
    "n": 64,
    "pointing": 0.9,
    "best_fixed_point": 0.7,
    "auprc": 0.6,
    "chance": 0.1,
}
POPULATION = {
    "age_years": [[1, 5]],
    "modalities": ["CR", "DX"],
    "body_parts": ["CHEST"],
    "views": ["AP", "PA"],
}


def tiny_model(side_px: int = SIDE_PX, seed: int = 0) -> bytes:
    """An ONNX model with logit, evidence and features, logit = mean(evidence) + bias."""
    random = np.random.default_rng(seed)
    cells = side_px // CELL_PX
    kernels = random.normal(0, 1 / CELL_PX, (N_FEATURES, 1, CELL_PX, CELL_PX))
    weights = {
        "kernels": kernels.astype(np.float32),
        "offsets": np.full(N_FEATURES, 0.5, np.float32),
        "head": random.normal(0, 3, (1, N_FEATURES, 1, 1)).astype(np.float32),
        "bias": np.float32(0.25).reshape(()),
        "channel": np.array([1]),
        "cells": np.array([1, 2]),
        "rows_and_columns": np.array([2, 3]),
    }
    nodes = [
        helper.make_node(
            "Conv", ["input", "kernels", "offsets"], ["conv"], strides=[CELL_PX, CELL_PX]
        ),
        helper.make_node("Relu", ["conv"], ["feature_map"]),
        helper.make_node("Conv", ["feature_map", "head"], ["evidence_4d"]),
        helper.make_node("Squeeze", ["evidence_4d", "channel"], ["evidence"]),
        helper.make_node("ReduceMean", ["evidence", "cells"], ["mean_evidence"], keepdims=0),
        helper.make_node("Add", ["mean_evidence", "bias"], ["logit"]),
        helper.make_node(
            "ReduceMean", ["feature_map", "rows_and_columns"], ["features"], keepdims=0
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 1, side_px, side_px])],
        [
            helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["N"]),
            helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["N", cells, cells]),
            helper.make_tensor_value_info("features", TensorProto.FLOAT, ["N", N_FEATURES]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def synthetic_inputs(seeds: range, side_px: int = SIDE_PX) -> np.ndarray:
    """Inputs (N, 1, S, S) of the synthetic radiographs of ``seeds``."""
    return np.stack(
        [
            to_input(synthetic_radiograph(seed, side_px), side_px=side_px, mean=MEAN, std=STD)
            for seed in seeds
        ]
    )


def tiny_manifest(
    model: bytes, side_px: int = SIDE_PX, *, validated: bool = False, **changes: Any
) -> Manifest:
    """The manifest that belongs to ``model``; ``changes`` replace its top-level facts.

    ``validated`` is what it says of its evidence.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    logit, evidence, features = session.run(
        ["logit", "evidence", "features"], {"input": synthetic_inputs(range(64), side_px)}
    )
    # Twice the distance, so that every synthetic radiograph is accepted, and noise still is not.
    check = fit_input_check(features[:32], features[32:], 1.0).model_dump()
    facts: dict[str, Any] = {
        "format": 2,
        "name": "tiny",
        "created": "2026-01-01T00:00:00Z",
        "model_sha256": hashlib.sha256(model).hexdigest(),
        "precision": "fp32",
        "finding": FINDING,
        "preprocessing": {
            "side_px": side_px,
            "shrink_to_px": Preprocessing.enough_px(side_px),
            "mean": MEAN,
            "std": STD,
        },
        "evidence": {
            "shape": list(evidence.shape[1:]),
            "scale": float(np.quantile(np.abs(evidence), 0.99)),
            "validated": validated,
            "validation": VALIDATION if validated else None,
        },
        "calibration": {
            # The median synthetic radiograph gets probability 0.5, so both labels occur.
            "temperature": 2.0,
            "bias": -float(np.median(logit)) / 2.0,
            "fitted_on": "synthetic radiographs",
            "n": 64,
            "prevalence": 0.5,
        },
        "operating_points": {
            "screening": {"threshold": 0.2, "rule": "chosen for tests"},
            "balanced": {"threshold": 0.5, "rule": "chosen for tests"},
            "rule_in": {"threshold": 0.8, "rule": "chosen for tests"},
        },
        "default_operating_point": "balanced",
        "uncertainty": {"margin": 0.01, "rule": "chosen for tests"},
        "population": POPULATION,
        "polarity": fit_polarity(
            [synthetic_radiograph(seed, side_px) for seed in range(32)]
        ).model_dump(),
        "input_check": check | {"distance_at_threshold": 2 * check["distance_at_threshold"]},
        "reference_answers": [{"seed": seed, "logit": float(logit[seed])} for seed in range(2)],
        "training": {"seed": 0},
        "metrics": [{"dataset": "synthetic", "split": "test", "n": 0, "n_subjects": 0}],
    }
    return Manifest.model_validate(facts | changes)


def write_tiny_bundle(
    folder: Path, *, side_px: int = SIDE_PX, seed: int = 0, **changes: Any
) -> Path:
    """Write a tiny bundle into ``folder`` and return it; ``changes`` replace manifest facts."""
    model = tiny_model(side_px, seed)
    write_bundle(folder, tiny_manifest(model, side_px, **changes), model)
    return folder


def as_format_1(bundle: Path) -> None:
    """Take away what format 1 did not say."""
    path = bundle / "manifest.json"
    facts = json.loads(path.read_text())
    del facts["finding"], facts["preprocessing"]["shrink_to_px"]
    facts["population"] = {"age_years": facts["population"]["age_years"]}
    path.write_text(json.dumps(facts | {"format": 1}))
