"""The original's way, as a server: the base of the ratios in serving.py.

    .venv/bin/python benchmarks/original.py --port 8201

FastAPI with an ``async`` handler that does everything itself: Pillow decodes the whole JPEG to RGB
and stretches it, PyTorch runs ResNet-18 eagerly in fp32 on its default number of threads, a fixed
threshold makes the label. uvicorn is started plainly, and finds httptools and uvloop installed.

The network is the plain one with three channels in, built from the parts of ours with random
weights, on which time does not depend; our standardisation of the input and our evidence are not
in it. Where the original leaves a choice, the quicker one is taken: bilinear stretching, inference
mode.

Does not: check its input, draw heatmaps, or serve anybody.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from typing import Annotated, Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, File, HTTPException, UploadFile
from PIL import Image, UnidentifiedImageError
from torch import nn

from chestxray.learning.networks import resnet18

SIDE_PX = 224
THRESHOLD = 0.8
MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)  # ImageNet's
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)


def network() -> nn.Module:
    """ResNet-18 from (N, 3, 224, 224) to a logit (N, 1)."""
    ours = resnet18()
    return nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=7, stride=2, padding=3, bias=False),
        *(ours.bn1, ours.relu, ours.maxpool),
        *(ours.layer1, ours.layer2, ours.layer3, ours.layer4),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), ours.fc),
    ).eval()


def application() -> FastAPI:
    app = FastAPI()
    model = network()

    @app.get("/metadata")
    async def metadata() -> dict[str, Any]:
        return {"model": "resnet18", "classes": ["NORMAL", "PNEUMONIA"], "threshold": THRESHOLD}

    @app.post("/predict")
    async def predict(file: Annotated[UploadFile, File()]) -> dict[str, Any]:
        try:
            image = Image.open(BytesIO(await file.read())).convert("RGB")
        except UnidentifiedImageError as exc:
            raise HTTPException(400, "Invalid image file.") from exc
        stretched = image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR)
        pixels = (np.asarray(stretched, dtype=np.float32) / 255 - MEAN) / STD
        inputs = torch.from_numpy(pixels.transpose(2, 0, 1)[np.newaxis].copy())
        with torch.inference_mode():
            probability = float(torch.sigmoid(model(inputs)))
        label = "PNEUMONIA" if probability >= THRESHOLD else "NORMAL"
        return {"filename": file.filename, "prediction": label, "probability": probability}

    return app


def main() -> None:
    asked = argparse.ArgumentParser(description="the original's way, as a server")
    asked.add_argument("--port", type=int, default=8201)
    uvicorn.run(application(), port=asked.parse_args().port)


if __name__ == "__main__":
    main()
