"""One tiny run and one bundle exported from it, shared by all tests of this room.

Over 100 held-out radiographs, because int8 must keep 99 % of the labels: one may then change (the
one at the threshold, which is one of theirs). Truths far apart, so that no more are near it.
One thread, because a tiny network gains nothing from two.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from chestxray.dataset import Sample, read_dataset
from chestxray.inference import Manifest
from chestxray.learning.config import TrainConfig
from chestxray.learning.export import export
from chestxray.learning.graph import to_onnx
from chestxray.learning.training import Run, train
from factories.datasets import LABELS, write_dataset
from factories.training_pictures import GENTLE

SIDE_PX = 64


def tiny_config(**changes: Any) -> TrainConfig:
    """A recipe for seconds; ``changes`` replace its keys."""
    facts: dict[str, Any] = {
        "name": "tiny",
        "side_px": SIDE_PX,
        "heldout": 0.5,
        "stages": [{"epochs": 1, "side_px": 32}, {"epochs": 6, "side_px": SIDE_PX}],
        "batch_size": 16,
        "learning_rate": 1e-3,
        "warmup_epochs": 0.5,
        "ema_decay": 0.8,
        "precision": "fp32",
        "threads": 1,
        "augmentation": GENTLE,
    }
    return TrainConfig.model_validate(facts | changes)


def silent(message: str) -> None:
    """The ``say`` of a test."""


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(name="tiny_config", scope="session")
def _tiny_config() -> Callable[..., TrainConfig]:
    return tiny_config


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """104 radiographs of each truth."""
    return read_dataset(write_dataset(tmp_path_factory.mktemp("tiny") / "data", 104), LABELS)


@pytest.fixture(scope="session")
def few_samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """16 radiographs of each truth."""
    return read_dataset(write_dataset(tmp_path_factory.mktemp("few") / "data", 16), LABELS)


@pytest.fixture(scope="session")
def run(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A network that tells the tiny data set's truths apart. Change nothing in it."""
    return train(tiny_config(), samples, tmp_path_factory.mktemp("run"), say=silent)


class Exported(NamedTuple):
    folder: Path
    manifest: Manifest
    model: bytes


@pytest.fixture(scope="session")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The int8 bundle of ``run``."""
    folder = tmp_path_factory.mktemp("exported") / "bundle"
    manifest = export(run, folder)
    return Exported(folder, manifest, (folder / "model.onnx").read_bytes())


@pytest.fixture(scope="session")
def fp32(run: Run) -> bytes:
    """The graph of ``run`` before it is quantised."""
    return to_onnx(run.network, SIDE_PX)


class Outputs(NamedTuple):
    logit: NDArray[np.float32]
    evidence: NDArray[np.float32]
    features: NDArray[np.float32]


def graph_outputs(model: bytes, inputs: NDArray[np.float32]) -> Outputs:
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return Outputs(*session.run(list(Outputs._fields), {"input": inputs}))


@pytest.fixture(name="graph_outputs", scope="session")
def _graph_outputs() -> Callable[[bytes, NDArray[np.float32]], Outputs]:
    """What an ONNX model says, asked without any code of the project."""
    return graph_outputs
