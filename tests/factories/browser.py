"""The reading page in a real browser: opening it, putting files on it, looking at what it shows.

Does not: know a right answer; tests ask the service for that.
"""

from __future__ import annotations

import base64
import mimetypes
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

import chestxray
from factories import images

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
"""None where there is none."""

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]

READ_WITHIN_MS = 20_000

EXAMPLES = {
    path.name: path.read_bytes()
    for path in sorted((Path(chestxray.__file__).parent / "examples").glob("*.jpeg"))
}
"""The examples that the package ships, by name."""

File = tuple[str, bytes]
"""A file's name and its content."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser, ended with all that it has open.

    Raises:
        playwright.sync_api.Error: it does not start.
    """
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visitor:
    """Opens pages as somebody who has never been there, and notes what must not happen on them."""

    browser: Browser
    troubles: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)
    contexts: list[BrowserContext] = field(default_factory=list)

    def open(self, client: httpx.Client, **options: Any) -> Page:
        """The page of the service that ``client`` talks to, in a context of its own."""
        origin = str(client.base_url).rstrip("/")
        given = {"viewport": {"width": 1440, "height": 900}, "base_url": origin} | options
        context = self.browser.new_context(**given)
        context.set_default_timeout(10_000)
        self.contexts.append(context)
        context.on("console", lambda message: self._said(message.type, message.text))
        context.on("weberror", lambda error: self._said("error", f"uncaught: {error.error}"))
        context.on("request", lambda request: self._asked(request, origin))
        context.on("requestfailed", self._failed)
        page = context.new_page()
        page.goto("/")
        return page

    def expects(self, pattern: str) -> None:
        """The test brings about troubles like ``pattern``; without one it fails."""
        self.expected.append(pattern)

    def allows(self, pattern: str) -> None:
        """Troubles like ``pattern`` may come or not."""
        self.allowed.append(pattern)

    def leave(self) -> None:
        """Close everything, and assert that nothing happened but what was expected."""
        seen = list(self.troubles)  # before closing, which breaks off what is under way
        for context in self.contexts:
            context.close()
        for pattern in self.expected:
            assert any(re.search(pattern, trouble) for trouble in seen), f"no {pattern}: {seen}"
        known = [*self.expected, *self.allowed]
        unexpected = [at for at in seen if not any(re.search(pattern, at) for pattern in known)]
        assert not unexpected, unexpected

    def _said(self, kind: str, text: str) -> None:
        if kind in {"error", "warning"}:
            self.troubles.append(f"{kind}: {text}")

    def _asked(self, request: Request, origin: str) -> None:
        if not request.url.startswith((f"{origin}/", "blob:", "data:")):
            self.troubles.append(f"another host was asked: {request.url}")

    def _failed(self, request: Request) -> None:
        self.troubles.append(f"failed: {request.method} {request.url} {request.failure}")


def payloads(files: Iterable[File]) -> list[dict[str, Any]]:
    """Files as Playwright takes them."""
    return [
        {
            "name": name,
            "mimeType": mimetypes.guess_type(name)[0] or "application/octet-stream",
            "buffer": data,
        }
        for name, data in files
    ]


def add(page: Page, *files: File) -> None:
    """Choose files, as in the browser's own dialog."""
    page.locator("#files").set_input_files(payloads(files))  # type: ignore[arg-type]


def until_read(page: Page, n: int) -> None:
    """Wait until the list has ``n`` readings, and all of them are answered or have failed."""
    finished = "#readings button:is([data-state=answered], [data-state=failed])"
    expect(page.locator(finished)).to_have_count(n, timeout=READ_WITHIN_MS)
    expect(page.locator("#readings button")).to_have_count(n)


def read(page: Page, *files: File) -> None:
    """Add files to an empty list and wait until all are read."""
    add(page, *files)
    until_read(page, len(files))


def read_example(page: Page, name: str = "pneumonia-1.jpeg") -> None:
    """Have an example answered and its heatmap there to be shown."""
    page.locator(f'[data-example="{name}"]').click()
    until_read(page, 1)
    until_shown(page)


def until_shown(page: Page) -> None:
    """Wait until the selected picture has been drawn."""
    expect(page.locator("#picture")).to_be_visible()
    settled(page)


def settled(page: Page) -> None:
    """Wait until what has been asked for is drawn: the viewer draws once in a frame."""
    page.evaluate(
        "async () => { for (let i = 0; i < 3; i++) await new Promise(requestAnimationFrame); }"
    )


def show_heatmap(page: Page) -> None:
    page.locator("#heatmap").click()
    expect(page.locator("#colour-bar")).to_be_visible()
    settled(page)


def heatmap_label(name: str, metadata: dict[str, Any]) -> str:
    """What a picture under its heatmap is called, by a model's ``/metadata``."""
    caution = "" if metadata["evidence"]["validated"] else ", not validated"
    return f"Radiograph {name} with heatmap{caution}"


def rows(page: Page) -> list[dict[str, str]]:
    """The list as it is shown: name, state in words, and the two in data attributes."""
    return page.locator("#readings button").evaluate_all(
        """(buttons) => buttons.map((button) => ({
            name: button.querySelector(".name").textContent,
            words: button.querySelector(".state").textContent,
            state: button.dataset.state,
            finding: button.dataset.finding ?? "",
        }))"""
    )


def canvas_pixels(page: Page, selector: str = "#picture") -> NDArray[np.uint8]:
    """The canvas's pixels (H, W, 4), RGBA, as they are on it."""
    settled(page)
    encoded = page.locator(selector).evaluate(
        """(canvas) => {
            const { width, height } = canvas;
            const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
            const parts = [];
            for (let i = 0; i < data.length; i += 32768) {
                parts.push(String.fromCharCode(...data.subarray(i, i + 32768)));
            }
            return { width, height, data: btoa(parts.join("")) };
        }"""
    )
    samples = np.frombuffer(base64.b64decode(encoded["data"]), np.uint8)
    return samples.reshape(encoded["height"], encoded["width"], 4)


def focused(page: Page) -> str:
    """The focused element, as a selector: its id, example or tag."""
    return page.evaluate(
        """() => {
            const { id, dataset, localName } = document.activeElement;
            return id ? `#${id}` : dataset.example ? `[${dataset.example}]` : localName;
        }"""
    )


def probability_text(probability: float) -> str:
    """A probability as the page writes it: never 0 and never 1."""
    if probability >= 0.9995:
        return "> 0.999"
    return "< 0.001" if probability < 0.0005 else f"{probability:.3f}"


def sentence(text: str) -> str:
    """The service's words as the page writes them."""
    return f"{text[0].upper()}{text[1:]}."


# --- pictures


def grey_of(data: bytes) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("L"))


def grey_16bit_png(grey: NDArray[np.uint8]) -> bytes:
    return images.raw_png(grey.astype(np.uint16) * 257, images.GREY, 16)


def enlarged_jpeg(data: bytes, width: int, height: int) -> bytes:
    """The picture at the size of a radiograph from a machine."""
    with Image.open(BytesIO(data)) as image:
        large = image.convert("L").resize((width, height), Image.Resampling.BICUBIC)
    return images.jpeg(np.asarray(large))


def noise_png(seed: int = 0) -> bytes:
    """Readable, and nothing like a chest: the input check refuses it."""
    return images.png(np.random.default_rng(seed).integers(0, 256, (300, 400), dtype=np.uint8))


BAND_GREYS = tuple(17 * i for i in range(16))


def bands_png(width: int = 640, height: int = 400) -> bytes:
    """Sixteen upright bands of known grey, dark to bright; the input check refuses it."""
    row = np.repeat(np.array(BAND_GREYS, np.uint8), width // len(BAND_GREYS))
    return images.png(np.repeat(row[np.newaxis], height, axis=0))
