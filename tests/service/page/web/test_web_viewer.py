"""The viewer shows the picture as it is, and what is done to it is what it says."""

import math
import re
from dataclasses import dataclass
from io import BytesIO

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from factories import images
from factories.browser import (
    BAND_GREYS,
    EXAMPLES,
    Visitor,
    bands_png,
    canvas_pixels,
    enlarged_jpeg,
    grey_of,
    heatmap_label,
    read,
    read_example,
    settled,
    show_heatmap,
    until_shown,
)
from factories.dicom_files import dicom
from factories.requests import decoded_png, predict

EXAMPLE = "pneumonia-1.jpeg"
SIDE_PX = 224  # of the examples
NETWORK_PX = 160  # of what the shipped network sees
BANDS_PX = (640, 400)


@dataclass(frozen=True)
class Box:
    """Where a picture lies on the canvas, in its pixels."""

    x: float
    y: float
    width: float
    height: float

    def inside(self, pixels: NDArray[np.uint8], margin_px: int = 2) -> NDArray[np.uint8]:
        top, left = (max(math.ceil(at) + margin_px, 0) for at in (self.y, self.x))
        bottom = math.floor(self.y + self.height) - margin_px
        right = math.floor(self.x + self.width) - margin_px
        return pixels[top:bottom, left:right]


def whole(page: Page, width: int, height: int) -> Box:
    """The largest box with the picture's aspect ratio in the middle of the canvas."""
    room = page.locator("#picture").bounding_box()
    assert room is not None
    scale = min(room["width"] / width, room["height"] / height)
    w, h = width * scale, height * scale
    return Box((room["width"] - w) / 2, (room["height"] - h) / 2, w, h)


def read_bands(page: Page) -> Box:
    read(page, ("bands.png", bands_png(*BANDS_PX)))
    until_shown(page)
    return whole(page, *BANDS_PX)


def band_greys(page: Page, box: Box) -> list[int]:
    """The grey in the middle of each band; asserts that it is grey and opaque."""
    pixels = canvas_pixels(page)
    y = round(box.y + box.height / 2)
    n = len(BAND_GREYS)
    greys = []
    for i in range(n):
        red, green, blue, alpha = pixels[y, round(box.x + (i + 0.5) * box.width / n)]
        assert red == green == blue
        assert alpha == 255
        greys.append(int(red))
    return greys


def dicom_window(grey: int, centre: float, width: float) -> int:
    """The linear function of PS3.3 C.11.2.1.2.1, from 0 to 255."""
    if grey <= centre - 0.5 - (width - 1) / 2:
        return 0
    if grey > centre - 0.5 + (width - 1) / 2:
        return 255
    return math.floor(((grey - (centre - 0.5)) / (width - 1) + 0.5) * 255 + 0.5)


def readout(page: Page) -> str:
    settled(page)
    return page.locator("#readout").inner_text()


def middle(page: Page, dx: float = 0, dy: float = 0) -> tuple[float, float]:
    """A point of the window, so far from the middle of the canvas."""
    room = page.locator("#picture").bounding_box()
    assert room is not None
    return room["x"] + room["width"] / 2 + dx, room["y"] + room["height"] / 2 + dy


def drag(page: Page, dx: float, dy: float) -> None:
    page.mouse.move(*middle(page))
    page.mouse.down()
    page.mouse.move(*middle(page, dx, dy), steps=4)
    page.mouse.up()


def first_bright_column(page: Page) -> int:
    """Where the bands turn brighter than the middle of the greys: an edge to follow."""
    pixels = canvas_pixels(page)
    return int(np.argmax(pixels[pixels.shape[0] // 2, :, 0] > 127))


def first_row(page: Page) -> int:
    """The first row of the canvas that shows anything of the picture."""
    return int(np.argmax(canvas_pixels(page)[:, :, 3].any(axis=1)))


# --- the picture


def test_the_canvas_shows_the_greys_of_the_file(page: Page) -> None:
    assert band_greys(page, read_bands(page)) == list(BAND_GREYS)


def test_an_example_is_shown_as_it_is(page: Page) -> None:
    read_example(page, EXAMPLE)
    box = whole(page, SIDE_PX, SIDE_PX)
    shown = box.inside(canvas_pixels(page))[:, :, 0].astype(float)
    with Image.fromarray(grey_of(EXAMPLES[EXAMPLE])) as image:
        size = (round(box.width), round(box.height))
        expected = np.asarray(image.resize(size, Image.Resampling.BICUBIC), float)
    rows, columns = shown.shape
    difference = np.abs(shown - expected[2 : 2 + rows, 2 : 2 + columns])
    assert difference.mean() < 1.5


@pytest.mark.parametrize(("width", "height"), [(640, 400), (320, 960), (1920, 120), (64, 64)])
def test_a_picture_keeps_its_aspect_ratio_and_lies_in_the_middle(
    page: Page, width: int, height: int
) -> None:
    read(page, ("bands.png", bands_png(width, height)))
    until_shown(page)
    box = whole(page, width, height)
    seen = canvas_pixels(page)[:, :, 3] > 0
    rows, columns = np.flatnonzero(seen.any(axis=1)), np.flatnonzero(seen.any(axis=0))
    assert abs(columns[0] - box.x) <= 1
    assert abs(columns[-1] + 1 - (box.x + box.width)) <= 1
    assert abs(rows[0] - box.y) <= 1
    assert abs(rows[-1] + 1 - (box.y + box.height)) <= 1


def test_a_picture_is_shown_upright_as_the_service_reads_it(
    page: Page, client: httpx.Client
) -> None:
    grey = np.repeat(np.array([[40], [200]], np.uint8), 200, axis=0).repeat(300, axis=1)
    turned = images.with_segment(images.jpeg(grey), 0xE1, b"Exif\0\0" + images.exif(6))
    facts = predict(client, turned, input_check="warn").json()["radiograph"]
    assert (facts["width_px"], facts["height_px"]) == (400, 300)
    read(page, ("turned.jpeg", turned))
    until_shown(page)
    box = whole(page, 400, 300)
    inside = box.inside(canvas_pixels(page))[:, :, 0]
    assert inside[:, : inside.shape[1] // 3].mean() > 190  # a quarter turn brings the foot left
    assert inside[:, -inside.shape[1] // 3 :].mean() < 50


def test_another_size_of_the_window_shows_the_whole_picture_again(page: Page) -> None:
    read_bands(page)
    page.set_viewport_size({"width": 1000, "height": 700})
    settled(page)
    assert band_greys(page, whole(page, *BANDS_PX)) == list(BAND_GREYS)


# --- the window


def test_invert_turns_every_grey_around_and_back(page: Page) -> None:
    read_example(page, EXAMPLE)
    box = whole(page, SIDE_PX, SIDE_PX)
    plain = box.inside(canvas_pixels(page), 0)
    invert = page.locator("#invert")
    expect(invert).to_have_attribute("aria-pressed", "false")
    invert.click()
    expect(invert).to_have_attribute("aria-pressed", "true")
    inverted = box.inside(canvas_pixels(page), 0)
    assert np.array_equal(inverted[:, :, :3], 255 - plain[:, :, :3])
    assert np.array_equal(inverted[:, :, 3], plain[:, :, 3])
    invert.click()
    assert np.array_equal(box.inside(canvas_pixels(page), 0), plain)


@pytest.mark.parametrize(
    ("centre", "width"),
    [(128, 256), (100, 120), (60, 40), (200, 17), (128, 1), (0, 300), (255, 512)],
)
def test_the_window_is_the_linear_function_of_dicom(page: Page, centre: int, width: int) -> None:
    box = read_bands(page)
    page.locator("#window-width").fill(str(width))
    page.locator("#window-centre").fill(str(centre))
    expected = [dicom_window(grey, centre, width) for grey in BAND_GREYS]
    assert band_greys(page, box) == expected
    assert f"window {width} at {centre}" in readout(page)
    page.locator("#invert").click()
    shown = np.array(band_greys(page, box))
    # Of what lies half way between two greys, either is right.
    assert np.abs(shown - (255 - np.array(expected))).max() <= 1


def test_dragging_changes_the_window_and_moves_nothing(page: Page) -> None:
    box = read_bands(page)
    edge = first_row(page)
    drag(page, 80, 0)
    width, centre = window_of(page)
    assert width > 256
    assert centre == 128
    drag(page, -160, -40)
    width, centre = window_of(page)
    assert width < 256
    assert centre < 128
    shown = np.array(band_greys(page, box))
    expected = np.array([dicom_window(grey, centre, width) for grey in BAND_GREYS])
    assert np.abs(shown - expected).max() <= 2  # the readout is rounded
    assert first_row(page) == edge
    expect(page.locator("#window-width")).to_have_value(str(width))
    expect(page.locator("#window-centre")).to_have_value(str(centre))


def window_of(page: Page) -> tuple[int, int]:
    found = re.search(r"window (\d+) at (\d+)", readout(page))
    assert found
    return int(found[1]), int(found[2])


def zoom_of(page: Page) -> float:
    found = re.search(r"zoom (\d+\.\d)×", readout(page))
    assert found
    return float(found[1])


# --- where it lies


def test_the_wheel_zooms_about_the_pointer(page: Page) -> None:
    box = read_bands(page)
    edge = first_bright_column(page)
    at = box.width / 8  # right of the middle, where the edge is
    canvas_width = canvas_pixels(page).shape[1]
    page.mouse.move(*middle(page, at))
    page.mouse.wheel(0, -300)
    zoom = zoom_of(page)
    assert zoom > 1.2
    pointer = canvas_width / 2 + at
    exact = math.exp(0.5)  # what is shown is rounded
    assert abs(exact - zoom) < 0.06
    assert abs(first_bright_column(page) - (pointer + (edge - pointer) * exact)) <= 2
    page.mouse.wheel(0, 300)
    assert zoom_of(page) == 1.0
    assert abs(first_bright_column(page) - edge) <= 1


def test_the_picture_is_never_smaller_than_the_stage_allows(page: Page) -> None:
    read_bands(page)
    before = canvas_pixels(page)
    page.locator("#zoom-out").click()
    assert zoom_of(page) == 1.0
    assert np.array_equal(canvas_pixels(page), before)


@pytest.mark.parametrize("how", ["shift", "tool", "middle button"])
def test_dragging_moves_the_picture_with_shift_the_middle_button_or_the_pan_tool(
    page: Page, how: str
) -> None:
    read_bands(page)
    for _ in range(4):
        page.locator("#zoom-in").click()
    edge = first_bright_column(page)
    if how == "tool":
        page.locator("#tool-pan").click()
        expect(page.locator("#tool-pan")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#tool-window")).to_have_attribute("aria-pressed", "false")
    if how == "shift":
        page.keyboard.down("Shift")
    page.mouse.move(*middle(page))
    button = "middle" if how == "middle button" else "left"
    page.mouse.down(button=button)
    page.mouse.move(*middle(page, 60, 0), steps=3)
    page.mouse.up(button=button)
    if how == "shift":
        page.keyboard.up("Shift")
    assert abs(first_bright_column(page) - (edge + 60)) <= 1
    assert window_of(page) == (256, 128)


def test_a_picture_cannot_be_lost_by_moving_it(page: Page) -> None:
    read_bands(page)
    page.locator("#zoom-in").click()
    page.locator("#tool-pan").click()
    for _ in range(6):
        drag(page, 400, 300)
    assert (canvas_pixels(page)[:, :, 3] > 0).mean() > 0.25


@pytest.mark.parametrize("how", ["double-click", "R", "button"])
def test_reset_shows_the_whole_picture_with_its_full_window(page: Page, how: str) -> None:
    read_bands(page)
    fresh = canvas_pixels(page)
    page.locator("#invert").click()
    page.locator("#window-width").fill("90")
    page.locator("#zoom-in").click()
    page.locator("#zoom-in").click()
    drag(page, 30, 20)
    assert not np.array_equal(canvas_pixels(page), fresh)
    if how == "double-click":
        page.mouse.dblclick(*middle(page))
    elif how == "R":
        page.keyboard.press("r")
    else:
        page.locator("#reset").click()
    assert np.array_equal(canvas_pixels(page), fresh)
    assert readout(page).startswith("zoom 1.0× · window 256 at 128")
    expect(page.locator("#invert")).to_have_attribute("aria-pressed", "false")


def test_arrows_move_the_focused_picture_and_with_shift_change_its_window(page: Page) -> None:
    read_bands(page)
    page.locator("#zoom-in").click()
    page.locator("#zoom-in").click()
    edge, top = first_bright_column(page), first_row(page)
    page.locator("#picture").focus()
    page.keyboard.press("ArrowRight")
    to_the_right = first_bright_column(page)
    assert to_the_right < edge  # as a page scrolls: what is right of it comes into sight
    page.keyboard.press("ArrowLeft")
    assert first_bright_column(page) == edge
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    assert first_row(page) == top
    page.keyboard.press("Shift+ArrowLeft")
    page.keyboard.press("Shift+ArrowUp")
    width, centre = window_of(page)
    assert width < 256
    assert centre < 128
    assert first_bright_column(page) != 0


def test_another_picture_comes_whole_and_unchanged(page: Page) -> None:
    read(page, ("bands.png", bands_png(*BANDS_PX)), (EXAMPLE, EXAMPLES[EXAMPLE]))
    until_shown(page)
    page.locator("#invert").click()
    page.locator("#zoom-in").click()
    page.keyboard.press("j")
    expect(page.locator("#picture")).to_have_attribute("aria-label", f"Radiograph {EXAMPLE}")
    assert readout(page).startswith("zoom 1.0× · window 256 at 128")
    page.keyboard.press("k")
    expect(page.locator("#picture")).to_have_attribute("aria-label", "Radiograph bands.png")
    until_shown(page)
    assert band_greys(page, whole(page, *BANDS_PX)) == list(BAND_GREYS)


# --- the heatmap


def test_the_heatmap_is_laid_over_and_taken_away(page: Page, client: httpx.Client) -> None:
    read_example(page, EXAMPLE)
    without = canvas_pixels(page)
    heatmap, colour_bar = page.locator("#heatmap"), page.locator("#colour-bar")
    expect(heatmap).to_have_attribute("aria-pressed", "false")
    expect(colour_bar).to_be_hidden()
    show_heatmap(page)
    expect(heatmap).to_have_attribute("aria-pressed", "true")
    label = heatmap_label(EXAMPLE, client.get("/metadata").json())
    expect(page.locator("#picture")).to_have_attribute("aria-label", label)
    assert not np.array_equal(canvas_pixels(page), without)
    heatmap.click()
    expect(heatmap).to_have_attribute("aria-pressed", "false")
    expect(colour_bar).to_be_hidden()
    assert np.array_equal(canvas_pixels(page), without)


def test_a_heatmap_of_no_opacity_is_none(page: Page) -> None:
    read_example(page, EXAMPLE)
    without = canvas_pixels(page)
    show_heatmap(page)
    page.locator("#opacity").fill("0")
    assert np.array_equal(canvas_pixels(page), without)
    page.locator("#opacity").fill("20")
    faint = np.abs(canvas_pixels(page).astype(int) - without).mean()
    page.locator("#opacity").fill("100")
    strong = np.abs(canvas_pixels(page).astype(int) - without).mean()
    assert strong > 2 * faint > 0


@pytest.mark.parametrize("size", [(224, 224), (400, 224), (224, 500)], ids=str)
def test_the_heatmap_lies_over_the_picture_and_nowhere_else(
    page: Page, client: httpx.Client, size: tuple[int, int]
) -> None:
    width, height = size
    with Image.fromarray(grey_of(EXAMPLES[EXAMPLE])) as image:
        data = images.png(np.asarray(image.resize(size)))
    answer = predict(client, data, heatmap=True, input_check="warn").json()
    read(page, ("a.png", data))
    if page.locator("#read-anyway").is_visible():
        page.locator("#read-anyway").click()
    expect(page.locator("#verdict")).to_be_visible()
    until_shown(page)
    without = canvas_pixels(page)
    show_heatmap(page)
    page.locator("#opacity").fill("100")
    shown = canvas_pixels(page)
    box = whole(page, width, height)
    outside = np.ones(shown.shape[:2], bool)
    box.inside(outside, -1)[:] = False
    assert not shown[outside].any()

    with Image.open(BytesIO(decoded_png(answer["heatmap"]))) as overlay:
        rgba = overlay.convert("RGBA")
    at = (round(box.width), round(box.height))
    colour = np.asarray(rgba.resize(at, Image.Resampling.BILINEAR), float)
    colour = colour[: shown.shape[0] - round(box.y)]
    y, x = round(box.y), round(box.x)
    here = (slice(y, y + colour.shape[0]), slice(x, x + colour.shape[1]))
    alpha = colour[:, :, 3:] / 255
    expected = colour[:, :, :3] * alpha + without[here][:, :, :3] * (1 - alpha)
    difference = np.abs(shown[here][:, :, :3] - expected)
    assert difference.mean() < 2
    assert np.quantile(difference, 0.99) < 10


def test_the_colour_bar_says_what_the_colours_stand_for(page: Page, client: httpx.Client) -> None:
    read_example(page, EXAMPLE)
    show_heatmap(page)
    scale = client.get("/metadata").json()["evidence"]["scale"]
    ticks = page.locator("#colour-bar-ticks li")
    assert ticks.all_inner_texts() == ["0", f"{scale / 2:.1f}", f"≥ {scale:.1f}"]
    colours = page.locator("#colour-bar img").bounding_box()
    assert colours is not None
    for i, share in enumerate([0, 0.5, 1]):
        tick = ticks.nth(i).bounding_box()
        assert tick is not None
        place = colours["y"] + colours["height"] * (1 - share)
        assert abs(tick["y"] + tick["height"] / 2 - place) <= 1.5
    expect(page.locator("#colour-bar")).to_contain_text("evidence for PNEUMONIA")


def test_the_readout_tells_the_evidence_under_the_pointer(page: Page, client: httpx.Client) -> None:
    read_example(page, EXAMPLE)
    evidence = predict(client, EXAMPLES[EXAMPLE], evidence=True).json()["evidence"]
    box = whole(page, SIDE_PX, SIDE_PX)
    room = page.locator("#picture").bounding_box()
    assert room is not None
    n = len(evidence)
    for row in range(n):
        for column in range(n):
            x = room["x"] + box.x + (column + 0.5) * box.width / n
            y = room["y"] + box.y + (row + 0.5) * box.height / n
            page.mouse.move(x, y)
            value = evidence[row][column]
            said = page.locator("#readout").inner_text().rpartition("evidence here ")[2]
            assert said == f"{'−' if value < 0 else '+'}{abs(value):.1f}"
    page.mouse.move(room["x"] + room["width"] / 2, room["y"] - 20)
    expect(page.locator("#readout")).not_to_contain_text("evidence")


def test_beside_the_picture_there_is_no_evidence(page: Page) -> None:
    page.set_viewport_size({"width": 1440, "height": 600})
    read_example(page, EXAMPLE)
    box = whole(page, SIDE_PX, SIDE_PX)
    assert box.x > 20
    for x in (box.x - 10, box.x + 10, box.x + box.width - 10, box.x + box.width + 10):
        page.mouse.move(*middle(page, x - box.x - box.width / 2))
        inside = box.x < x < box.x + box.width
        assert ("evidence here" in readout(page)) is inside


def test_what_the_browser_cannot_show_is_shown_as_the_network_saw_it(
    visitor: Visitor, client: httpx.Client
) -> None:
    page = visitor.open(client)
    visitor.allows("net::ERR_ABORTED")  # what the first look had not finished
    # As a browser that does not know the format, which DICOM is to all of them.
    page.add_init_script("window.createImageBitmap = async () => { throw new Error('unknown') }")
    page.reload()
    wide = enlarged_jpeg(EXAMPLES[EXAMPLE], 640, 400)
    read(page, ("wide.jpeg", wide))
    until_shown(page)
    expect(page.locator("#file-name")).to_have_text("wide.jpeg (as the network saw it)")
    answer = predict(client, wide, preview=True).json()
    seen = np.asarray(Image.open(BytesIO(decoded_png(answer["preview"]))))
    assert seen.shape == (NETWORK_PX, NETWORK_PX)
    box = whole(page, 640, 400)  # of the file, not of what the network saw
    shown = box.inside(canvas_pixels(page))[..., 0]
    height, width = shown.shape
    stretched = np.asarray(Image.fromarray(seen).resize((width, height)), int)
    assert np.abs(shown - stretched).mean() < 3
    expect(page.locator("#readings canvas")).to_have_attribute("width", "112")


def test_a_dicom_file_is_answered_and_shown_as_the_network_saw_it(
    page: Page, client: httpx.Client
) -> None:
    """With window and shape applied, which no browser could; a lateral view says that it is one."""
    grey = np.asarray(Image.open(BytesIO(EXAMPLES[EXAMPLE])).convert("L").resize((256, 256)))
    low_is_bright = dicom(255 - grey, bits=8, PhotometricInterpretation="MONOCHROME1")
    read(page, ("IM000001", low_is_bright), ("IM000002", dicom(ViewPosition="LL")))
    until_shown(page)
    expect(page.locator("#file-name")).to_have_text("IM000001 (as the network saw it)")
    answer = predict(client, low_is_bright, preview=True).json()
    seen = np.asarray(Image.open(BytesIO(decoded_png(answer["preview"]))))
    shown = whole(page, 256, 256).inside(canvas_pixels(page))[..., 0]
    height, width = shown.shape
    stretched = np.asarray(Image.fromarray(seen).resize((width, height)), int)
    assert np.abs(shown - stretched).mean() < 3
    expect(page.locator("#readings")).to_contain_text("not judged: wrong view")


def test_a_file_that_nobody_can_show_says_so(page: Page) -> None:
    read(page, ("text.jpeg", b"This is no picture."))
    expect(page.locator("#picture-note")).to_contain_text("can show this")
    expect(page.locator("#save-png")).to_be_disabled()


def test_two_fingers_zoom_and_move_the_picture(visitor: Visitor, client: httpx.Client) -> None:
    page = visitor.open(client, has_touch=True, viewport={"width": 390, "height": 844})
    read(page, ("bands.png", bands_png(*BANDS_PX)))
    until_shown(page)
    page.locator("#picture").scroll_into_view_if_needed()
    room = page.locator("#picture").bounding_box()
    assert room is not None
    x, y = room["x"] + room["width"] / 2, room["y"] + room["height"] / 2
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        told = [{"x": at[0], "y": at[1], "id": i} for i, at in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": told})

    before = canvas_pixels(page)
    fingers("touchStart", (x - 40, y), (x + 40, y))
    fingers("touchMove", (x - 80, y), (x + 80, y))
    settled(page)
    expect(page.locator("#readout")).to_contain_text("zoom 2.0×")
    height, width, _ = before.shape
    zoomed = canvas_pixels(page)
    for share in (0.3, 0.4, 0.6, 0.7):  # what was there lies twice as far from the middle
        from_middle = share - 0.5
        was = before[height // 2, round(width * (0.5 + from_middle / 2))]
        assert (zoomed[height // 2, round(width * share)] == was).all()

    fingers("touchMove", (x - 50, y), (x + 110, y))
    fingers("touchEnd")
    settled(page)
    expect(page.locator("#readout")).to_contain_text("zoom 2.0×")
    moved = canvas_pixels(page)
    row = height // 2
    shift = round(30 * width / room["width"])
    assert (moved[row, 60 + shift : -10] == zoomed[row, 60 : -10 - shift]).mean() > 0.98
