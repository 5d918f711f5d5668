"""Draws a data set of synthetic radiographs, so that the tutorial has something to train on.

    .venv/bin/python examples/make_dataset.py DIR

DIR gets ``NORMAL/`` and ``PNEUMONIA/``, named as the published files are. PNEUMONIA has a bright
patch in each lung. Another ``--seed`` draws other bodies, a smaller ``--opacity`` fainter patches.

Does not: resemble any patient. What is learned from these files says nothing about radiographs.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from chestxray.imaging.synthetic import synthetic_radiograph

SIDE_PX = 128


def main(
    out: Annotated[Path, typer.Argument(metavar="DIR", file_okay=False)],
    n: Annotated[int, typer.Option(min=2, help="files of each truth")] = 110,
    seed: Annotated[int, typer.Option(min=0, help="of the first body")] = 0,
    opacity: Annotated[float, typer.Option(min=0, max=1, help="grey added in its middle")] = 0.6,
) -> None:
    """Write N files of each truth into DIR."""
    for truth in ("NORMAL", "PNEUMONIA"):
        (out / truth).mkdir(parents=True, exist_ok=True)
    for number in range(n):
        group = ("IM", "NORMAL2-IM")[number % 2]
        normal = synthetic_radiograph(seed + 2 * number, SIDE_PX)
        save(normal, out / "NORMAL" / f"{group}-{number:04d}-0001.jpeg")
        kind = ("bacteria", "virus")[number % 2]
        body = seed + 2 * number + 1
        ill = synthetic_radiograph(body, SIDE_PX) + opacity * patches(body)
        save(ill, out / "PNEUMONIA" / f"person{number}_{kind}_1.jpeg")
    typer.echo(f"{out}: {n} files of each truth")


def patches(seed: int) -> NDArray[np.float64]:
    """(SIDE_PX, SIDE_PX) in [0, 1]: a soft patch somewhere in each lung."""
    random = np.random.default_rng((seed, 1))
    steps = (np.arange(SIDE_PX) + 0.5) / SIDE_PX * 2 - 1
    drawn = np.zeros((SIDE_PX, SIDE_PX))
    for side in (-1, 1):
        at_x = side * random.uniform(0.36, 0.5)
        at_y = random.uniform(-0.4, 0.2)
        distance = np.hypot(steps[np.newaxis, :] - at_x, (steps[:, np.newaxis] - at_y) / 1.4)
        drawn += np.clip(1 - distance / 0.5, 0, 1)
    return drawn


def save(pixels: NDArray[np.floating], file: Path) -> None:
    """Write (H, W) pixels in [0, 1] as a grey JPEG."""
    levels = np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    Image.fromarray(levels).save(file, quality=92)


if __name__ == "__main__":
    typer.run(main)
