"""Draws the README's picture: an example image, its heatmap laid over, and the service's answer.

.venv/bin/python docs/make_picture.py
"""

import json
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from chestxray.imaging import Limits
from chestxray.inference import Predictor, render_heatmap
from chestxray.service.answers import answer
from chestxray.service.schemas import PredictOptions

EXAMPLES = Path(__file__).parents[1] / "src" / "chestxray" / "examples"
OUT = Path(__file__).parent / "images" / "answer.png"
SHOWN = ("label", "probability", "threshold", "operating_point", "uncertain", "input_check")


def main() -> None:
    predictor = Predictor.load()
    data = (EXAMPLES / "pneumonia-1.jpeg").read_bytes()
    answered = answer(predictor, data, PredictOptions(evidence=True), Limits())
    picture = Image.open(BytesIO(data)).convert("RGBA")
    heatmap = Image.open(
        BytesIO(render_heatmap(answered.evidence, predictor.manifest.evidence.scale))
    )

    figure = Figure(figsize=(10.5, 3.6), layout="constrained", facecolor="#15181c")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.15))
    left.imshow(picture)
    middle.imshow(Image.alpha_composite(picture, heatmap.convert("RGBA").resize(picture.size)))
    shown = {key: answered.model_dump()[key] for key in SHOWN}
    text = json.dumps(shown, indent=2, default=str)
    right.text(0, 0.5, text, family="monospace", size=10, color="#d8dee6", va="center")
    for axes in (left, middle, right):
        axes.axis("off")
    OUT.parent.mkdir(exist_ok=True)
    figure.savefig(OUT, dpi=110)


if __name__ == "__main__":
    main()
