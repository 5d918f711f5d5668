"""Asks the service as a client does, and makes the files to send."""

import base64
from typing import Any

import httpx

from chestxray.imaging.synthetic import synthetic_radiograph
from factories import images

AGE_IS_NOT_KNOWN = (
    "the patient's age is not known: the model is meant only for patients aged 1 to 5 years"
)
"""The warning of every answer to a picture that says nothing of its patient's age."""


def radiograph_png(seed: int = 0, side_px: int = 96) -> bytes:
    """A synthetic radiograph as a grey PNG."""
    return images.png((synthetic_radiograph(seed, side_px) * 255).round().astype("uint8"))


def predict(client: httpx.Client, data: bytes, **query: Any) -> httpx.Response:
    return client.post("/predict", params=query, files={"file": ("a.png", data)})


def predict_batch(
    client: httpx.Client, files: list[tuple[str, bytes]], **query: Any
) -> httpx.Response:
    return client.post("/predict_batch", params=query, files=[("files", file) for file in files])


def decoded_png(data_url: str) -> bytes:
    return base64.b64decode(data_url.removeprefix("data:image/png;base64,"))
