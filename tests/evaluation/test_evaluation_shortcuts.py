import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from chestxray.dataset import Sample, read_dataset
from chestxray.evaluation.shortcuts import shortcut_floor
from factories import images
from factories.bundles import tiny_manifest, tiny_model
from factories.datasets import LABELS, published_names, write_files

Levels = NDArray[np.uint8]


def write(folder: Path, n_per_truth: int, picture: Callable[[str, int], Levels]) -> list[Sample]:
    """A data set with the published names, each picture a function of its truth and number."""
    files = {
        f"{truth}/{name}": images.png(picture(truth, number))
        for truth in LABELS
        for number, name in enumerate(
            published_names(n_per_truth, positive=truth == LABELS.positive)
        )
    }
    return read_dataset(write_files(folder, files), LABELS)


def floor_of(samples: list[Sample], *, threads: int) -> dict[str, Any]:
    return shortcut_floor(samples, tiny_manifest(tiny_model()), threads=threads)


def noise(truth: str, number: int, side_px: int = 32) -> Levels:
    """Noise whose mean and spread differ from picture to picture, but not by truth."""
    random = np.random.default_rng((number, truth == "PNEUMONIA"))
    mean, spread = random.uniform(90, 160), random.uniform(10, 30)
    return np.clip(random.normal(mean, spread, (side_px, side_px)), 0, 255).astype(np.uint8)


def brighter(truth: str, number: int) -> Levels:
    return noise(truth, number) // 4 + np.uint8(120 * (truth == "PNEUMONIA"))


def larger(truth: str, number: int) -> Levels:
    return noise(truth, number, 64 if truth == "PNEUMONIA" else 32)


def test_grey_levels_that_give_the_truth_away_raise_the_floor_to_one(tmp_path):
    floor = floor_of(write(tmp_path, 30, brighter), threads=2)
    assert floor["grey_statistics"]["auroc"]["value"] > 0.99
    assert floor["n_folds"] == 5


def test_file_sizes_that_give_the_truth_away_raise_the_floor_to_one(tmp_path):
    floor = floor_of(write(tmp_path, 30, larger), threads=2)
    assert floor["size_bytes"]["auroc"]["value"] > 0.99
    assert floor["grey_statistics"]["auroc"]["value"] < 0.8


def test_the_floor_is_a_half_where_nothing_gives_the_truth_away(tmp_path):
    floor = floor_of(write(tmp_path, 150, noise), threads=2)
    for shortcut in ("grey_statistics", "size_bytes"):
        auroc = floor[shortcut]["auroc"]
        assert auroc["value"] == pytest.approx(0.5, abs=0.1)
        assert auroc["ci_low"] < 0.5 < auroc["ci_high"]


def test_a_subject_s_own_pictures_do_not_give_it_away(tmp_path):
    """Pictures of one subject are alike, and subjects are not by truth: knowing one helps none."""

    def subjects(truth: str, number: int) -> Levels:
        return noise(truth, number // 10)

    names = {
        "NORMAL": lambda i: f"IM-{i // 10:04d}-{i:04d}.png",
        "PNEUMONIA": lambda i: f"person{i // 10}_virus_{i}.png",
    }
    files = {
        f"{truth}/{name(i)}": images.png(subjects(truth, i))
        for truth, name in names.items()
        for i in range(200)
    }
    floor = floor_of(read_dataset(write_files(tmp_path, files), LABELS), threads=2)
    assert floor["grey_statistics"]["auroc"]["value"] < 0.8
    width = [floor["grey_statistics"]["auroc"][end] for end in ("ci_low", "ci_high")]
    assert width[1] - width[0] > 0.15  # 40 subjects, not 400 radiographs


def test_the_floor_is_the_same_for_any_number_of_threads(tmp_path):
    samples = write(tmp_path, 10, noise)
    assert floor_of(samples, threads=1) == floor_of(samples, threads=3)


def test_the_floor_is_plain_json_without_nan(tmp_path):
    floor = floor_of(write(tmp_path, 12, noise), threads=2)
    assert json.loads(json.dumps(floor, allow_nan=False)) == floor
    for shortcut in ("grey_statistics", "size_bytes"):
        assert set(floor[shortcut]["auroc"]) == {"value", "ci_low", "ci_high"}


def test_with_few_subjects_there_are_fewer_folds(tmp_path):
    samples = write(tmp_path, 6, brighter)  # three subjects of each truth
    floor = floor_of(samples, threads=1)
    assert floor["n_folds"] == 3
    assert floor["grey_statistics"] is not None


def test_one_subject_of_a_truth_gives_no_floor(tmp_path):
    files = {f"NORMAL/IM-0001-{i:04d}.png": images.png(noise("NORMAL", i)) for i in range(4)}
    files |= {f"PNEUMONIA/{i}.png": images.png(noise("PNEUMONIA", i)) for i in range(4)}
    floor = floor_of(read_dataset(write_files(tmp_path, files), LABELS), threads=1)
    assert floor == {"grey_statistics": None, "size_bytes": None, "n_folds": 0}


def test_files_that_cannot_be_read_are_left_out(tmp_path):
    samples = write(tmp_path, 12, noise)
    broken = {"NORMAL/a.png": b"no picture", "PNEUMONIA/b.png": b""}
    with_broken = read_dataset(write_files(tmp_path, broken), LABELS)
    assert len(with_broken) == len(samples) + 2
    assert floor_of(with_broken, threads=2) == floor_of(samples, threads=2)


def test_where_nothing_can_be_read_there_is_no_floor(tmp_path):
    samples = read_dataset(
        write_files(tmp_path, {"NORMAL/a.png": b"", "PNEUMONIA/b.png": b""}), LABELS
    )
    assert floor_of(samples, threads=1)["n_folds"] == 0


def test_evaluating_without_stress_needs_neither_scipy_nor_scikit_learn():
    program = (
        "import sys, chestxray.evaluation.evaluate; "
        "sys.exit(any(m in sys.modules for m in ('scipy', 'sklearn', 'matplotlib')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
