"""Takes the pictures of the reading page, or checks that they are of the page as it is.

    .venv/bin/python docs/screenshots.py            # takes
    .venv/bin/python docs/screenshots.py --check    # exits 1 if they are stale

The real service with the shipped bundle, in Debian's Chromium. What is read are the examples, and
for the refusal a picture drawn here: nothing shows anybody. Beside the pictures, screenshots.json
has the SHA-256 of what they depend on.

Does not: notice another browser or another font; no two machines draw the same pixels.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps
from playwright.sync_api import Browser, Page, expect

from chestxray.inference import BUNDLED, read_bundle

REPOSITORY = Path(__file__).parents[1]
sys.path += [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "tests")]
from processes import started  # noqa: E402 - no part of a package

from factories.browser import (  # noqa: E402
    EXAMPLES,
    add,
    chromium,
    read,
    settled,
    show_heatmap,
    until_read,
)

SERVE = (str(REPOSITORY / ".venv" / "bin" / "chestxray"), "serve")
COMMAND = ".venv/bin/python docs/screenshots.py"
OUT = REPOSITORY / "docs" / "images"
FACTS = "screenshots.json"

WEB = REPOSITORY / "src" / "chestxray" / "service" / "page" / "web"
SHOWN = "pneumonia-1.jpeg"
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
"""What the page's clock says: the same page gives the same picture on any day."""

A4_PX = (794, 1123)
MARGIN_PX = 53
"""A4 and the 14 mm of print.css, at the 96 px an inch of CSS."""

LEVELS_APART = 5
"""Of the levels that a picture keeps of each colour, black and white among them: none moves by more
than 2. It makes the files a third smaller; a palette of 256 colours would do more, and band."""


def read_examples(page: Page) -> None:
    """All examples answered, one of them shown."""
    read(page, *EXAMPLES.items())
    _select(page, SHOWN)


def lay_heatmap_over(page: Page) -> None:
    """The same under its heatmap, with what the page says of it."""
    read_examples(page)
    show_heatmap(page)


def refuse(page: Page) -> None:
    """The examples, and a picture that is no radiograph, shown."""
    read(page, *EXAMPLES.items())
    add(page, ("landscape.png", landscape()))
    until_read(page, len(EXAMPLES) + 1)
    _select(page, "landscape.png")
    expect(page.locator("#refusal")).to_be_visible()


def open_model_card(page: Page) -> None:
    """The model card, over the examples."""
    read_examples(page)
    page.click("#open-model-card")


def print_report(page: Page) -> None:
    """What a printer gets."""
    read_examples(page)
    page.evaluate("() => { window.dispatchEvent(new Event('beforeprint')); }")
    page.emulate_media(media="print")


def welcome(page: Page) -> None:
    """The page as it opens, with the pictures of all examples there."""
    expect(page.locator("#open-model-card")).to_be_enabled()
    page.wait_for_function(
        """(n) => {
            const pictures = [...document.querySelectorAll("#examples img")];
            return pictures.length === n && pictures.every(({ complete }) => complete);
        }""",
        arg=len(EXAMPLES),
    )


@dataclass(frozen=True, slots=True)
class Shot:
    """One picture: how large the screen is, and what is done before it is taken."""

    width_px: int
    height_px: int
    prepare: Callable[[Page], None]
    scale: int = 1
    """Pixels of the picture to a px of CSS."""
    border_px: int = 0
    """White around it, as around what is printed."""


SHOTS = {
    "page-phone": Shot(390, 844, read_examples, scale=2),
    "page-laptop": Shot(1440, 900, read_examples),
    "page-4k": Shot(3840, 2160, read_examples),
    "page-heatmap": Shot(1440, 900, lay_heatmap_over),
    "page-welcome": Shot(1440, 900, welcome),
    "page-refusal": Shot(1440, 900, refuse),
    "page-model-card": Shot(1440, 900, open_model_card),
    "page-report": Shot(
        A4_PX[0] - 2 * MARGIN_PX, A4_PX[1] - 2 * MARGIN_PX, print_report, border_px=MARGIN_PX
    ),
}


def sources_sha256() -> str:
    """Of all that the pictures depend on: the page, the bundle, the examples and this program."""
    digest = hashlib.sha256(read_bundle(BUNDLED).sha256.encode())
    files = {path.name: path.read_bytes() for path in (*sorted(WEB.iterdir()), Path(__file__))}
    for name, content in (EXAMPLES | files).items():
        digest.update(name.encode())
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def is_stale(folder: Path = OUT) -> bool:
    """Whether the pictures in ``folder`` are of another page than the one that is."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return True
    return bool(facts["sources_sha256"] != sources_sha256())


def write_facts(folder: Path, sources: str, version: str) -> None:
    """Write down what the pictures in ``folder`` were taken of, and with which Chromium."""
    facts = {"command": COMMAND, "chromium": version, "sources_sha256": sources}
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def take(address: str, browser: Browser, names: Iterable[str], folder: Path) -> None:
    """Take the pictures ``names`` of the page at ``address`` into ``folder``."""
    for name in names:
        shot = SHOTS[name]
        context = browser.new_context(
            viewport={"width": shot.width_px, "height": shot.height_px},
            device_scale_factor=shot.scale,
            locale="en-GB",
            timezone_id="UTC",
        )
        page = context.new_page()
        page.clock.set_fixed_time(NOW)
        page.goto(address)
        shot.prepare(page)
        page.evaluate("() => window.scrollTo(0, 0)")  # clicking has scrolled a small screen
        page.mouse.move(0, 0)  # over nothing that would light up
        settled(page)
        taken = Image.open(BytesIO(page.screenshot())).convert("RGB")
        context.close()
        made = ImageOps.expand(taken, shot.border_px, "white")
        small(made).save(folder / f"{name}.png", optimize=True)


def small(taken: Image.Image) -> Image.Image:
    """The picture in fewer colours."""
    return taken.point(lambda level: round(level / LEVELS_APART) * LEVELS_APART)


def landscape() -> bytes:
    """A PNG of what is no radiograph: hills under the sun."""
    drawn = Image.new("RGB", (960, 720), "#8ec5f0")
    draw = ImageDraw.Draw(drawn)
    draw.ellipse((680, 90, 820, 230), fill="#ffd84a")
    draw.ellipse((-300, 380, 620, 1100), fill="#5d9a4f")
    draw.ellipse((360, 440, 1300, 1200), fill="#417d43")
    stream = BytesIO()
    drawn.save(stream, "PNG")
    return stream.getvalue()


def _select(page: Page, name: str) -> None:
    page.locator("#readings button", has_text=name).click()
    expect(page.locator("#picture")).to_have_attribute("aria-label", f"Radiograph {name}")


def main() -> None:
    asked = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    asked.add_argument("--check", action="store_true", help="take nothing; exit 1 if stale")
    asked.add_argument("--out", type=Path, default=OUT, help="folder [docs/images]")
    given = asked.parse_args()
    if given.check:
        sys.exit(f"the pictures are stale: {COMMAND}" if is_stale(given.out) else 0)
    given.out.mkdir(parents=True, exist_ok=True)
    sources = sources_sha256()  # before: what is changed meanwhile makes them stale
    with started(SERVE, "/readyz") as server, chromium() as browser:
        take(server.address, browser, SHOTS, given.out)
        write_facts(given.out, sources, browser.version)


if __name__ == "__main__":
    main()
