"""Makes a tiny data set: files named as published, two truths that a small network can tell apart.

The radiographs are synthetic; those with the finding have a bright opacity in each lung. Half of
each truth is named as each of its groups, and a subject has one to three files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chestxray.dataset import Labels
from chestxray.imaging.synthetic import synthetic_radiograph
from factories import images

SIDE_PX = 64
LABELS = Labels("NORMAL", "PNEUMONIA")


def radiograph_levels(seed: int, *, opacity: bool, side_px: int = SIDE_PX) -> NDArray[np.uint8]:
    """(side_px, side_px) grey levels of a synthetic radiograph, with or without an opacity."""
    pixels = synthetic_radiograph(seed, side_px).astype(np.float64)
    if opacity:
        random = np.random.default_rng((seed, 1))
        steps = (np.arange(side_px) + 0.5) / side_px * 2 - 1
        for side in (-1, 1):
            at_x = side * random.uniform(0.36, 0.5)
            at_y = random.uniform(-0.4, 0.2)
            distance = np.hypot(steps[np.newaxis, :] - at_x, (steps[:, np.newaxis] - at_y) / 1.4)
            pixels += 0.8 * np.clip(1 - distance / 0.5, 0, 1)
    return np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8)


def published_names(n: int, *, positive: bool) -> list[str]:
    """``n`` file names as Kermany published them; subjects have one, two or three files."""
    names: list[str] = []
    subject = 0
    while len(names) < n:
        subject += 1
        for file in range(1 + subject % 3):
            if positive:
                kind = ("bacteria", "virus")[subject % 2]
                names.append(f"person{subject}_{kind}_{100 + len(names)}.png")
            else:
                group = ("IM", "NORMAL2-IM")[subject % 2]
                names.append(f"{group}-{subject:04d}-{file:04d}.png")
    return names[:n]


def write_dataset(
    folder: Path, n_per_truth: int = 24, *, first_seed: int = 0, labels: Labels = LABELS
) -> Path:
    """Write ``n_per_truth`` radiographs of each truth into ``folder`` and return it."""
    for truth in labels:
        positive = truth == labels.positive
        (folder / truth).mkdir(parents=True)
        for number, name in enumerate(published_names(n_per_truth, positive=positive)):
            levels = radiograph_levels(first_seed + 2 * number + positive, opacity=positive)
            (folder / truth / name).write_bytes(images.png(levels))
    return folder


def write_files(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files of any content (path below ``folder`` → bytes) and return the folder."""
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def write_labels(folder: Path, rows: Sequence[dict[str, str]]) -> None:
    """Write ``labels.csv`` beside the two folders."""
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def write_kaggle_download(folder: Path, n_per_truth: int = 4) -> Path:
    """Unpack into ``folder`` what Kaggle's zip of the published set holds, as a Mac packed it.

    Three parts, once more within themselves, and what macOS and Windows leave behind.
    """
    parts = (("train", n_per_truth), ("val", 1), ("test", 2))
    for seed, (part, n) in enumerate(parts):
        for place in ("chest_xray", "chest_xray/chest_xray"):
            write_dataset(folder / place / part, n, first_seed=1000 * seed)
    for place in ("chest_xray", "chest_xray/train", "chest_xray/train/NORMAL"):
        write_files(folder / place, {".DS_Store": b"\0\0\0\1Bud1", "Thumbs.db": b"\xd0\xcf\x11"})
    fork = b"\0\5\x16\7\0\2\0\0Mac OS X        "
    for place in ("__MACOSX/chest_xray", "chest_xray/__MACOSX/chest_xray"):
        write_files(folder / place, {"train/NORMAL/._IM-0001-0000.png": fork})
    return folder
