"""Draws the example images inside the package: no child's radiograph, but something to send.

    .venv/bin/python examples/make_examples.py --data ../shared/data/chest_xray/train

Each is the mean of a truth's training radiographs plus a random draw of its first principal
components, kept if the shipped bundle accepts it as a chest radiograph and labels it as the truth
that it was drawn from. What a draw shows was never one person's: its 40 numbers come from a random
generator.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from chestxray import imaging
from chestxray.dataset import read_dataset
from chestxray.imaging import Radiograph
from chestxray.inference import Predictor

OUT = Path(__file__).parents[1] / "src" / "chestxray" / "examples"
SIDE_PX = 224
N_RADIOGRAPHS = 1000  # more of them change the mean and the components no more
N_COMPONENTS = 40
N_EACH = 2


def main(data: Annotated[Path, typer.Option(exists=True, file_okay=False)]) -> None:
    """Write N_EACH examples of each truth into the package."""
    predictor = Predictor.load()
    OUT.mkdir(exist_ok=True)
    labels = predictor.manifest.finding.labels
    samples = read_dataset(data, labels)
    for truth in labels:
        files = [s.file for s in samples if s.truth == truth]
        files = files[:: max(1, len(files) // N_RADIOGRAPHS)]
        images = np.stack(
            [imaging.resize(imaging.read_file(file).pixels, SIDE_PX).ravel() for file in files]
        )
        mean = images.mean(axis=0)
        # The components from the Gram matrix: there are fewer radiographs than pixels.
        gram = (images - mean) @ (images - mean).T
        variances, vectors = np.linalg.eigh(gram)
        order = np.argsort(variances)[::-1][:N_COMPONENTS]
        components = vectors[:, order].T @ (images - mean) / np.sqrt(variances[order])[:, None]
        spreads = np.sqrt(variances[order] / len(images))
        generator = np.random.default_rng(0)
        made = 0
        while made < N_EACH:
            draw = mean + (generator.normal(size=N_COMPONENTS) * spreads) @ components
            grey = np.rint(np.clip(draw, 0, 1) * 255).astype(np.uint8).reshape(SIDE_PX, SIDE_PX)
            pixels = grey.astype(np.float32) / 255
            (answer,) = predictor.predict([Radiograph(pixels, "JPEG", SIDE_PX, SIDE_PX)])
            sure = not answer.uncertain and answer.input_check.accepted
            if answer.label == truth and sure:
                made += 1
                Image.fromarray(grey).save(OUT / f"{truth.lower()}-{made}.jpeg", quality=92)


if __name__ == "__main__":
    typer.run(main)
