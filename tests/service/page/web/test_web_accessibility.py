"""Axe finds nothing, nothing moves, and nothing is lost on small, huge and enlarged pages."""

from collections.abc import Iterator

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.http.keys import hash_of
from chestxray.service.settings import Settings
from factories.browser import (
    ARGUMENTS,
    CHROMIUM,
    EXAMPLES,
    Visitor,
    add,
    noise_png,
    read,
    read_example,
    settled,
    show_heatmap,
    until_read,
    until_shown,
)
from factories.servers import served, serving

SIZES = {"phone": (390, 844), "desk": (1440, 900), "wall": (3840, 2160)}

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}


def assert_accessible(page: Page, state: str) -> None:
    settled(page)
    violations = Axe().run(page, options=OPTIONS).response["violations"]
    found = [
        f"{state}: {violation['id']}: {node['html'][:150]}: {node['failureSummary']}"
        for violation in violations
        for node in violation["nodes"]
    ]
    assert found == []
    assert page.evaluate("() => document.getAnimations().length") == 0
    assert_nothing_beside(page)


def assert_nothing_beside(page: Page) -> None:
    """The page does not scroll sideways."""
    assert page.evaluate(
        "() => document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


@pytest.fixture(params=SIZES)
def size(request: pytest.FixtureRequest) -> dict[str, int]:
    width, height = SIZES[request.param]
    return {"width": width, "height": height}


@pytest.fixture
def sized(visitor: Visitor, client: httpx.Client, size: dict[str, int]) -> Page:
    return visitor.open(client, viewport=size)


@pytest.fixture(scope="session")
def guarded(predictor: Predictor) -> Iterator[httpx.Client]:
    with served(create_app(Settings(api_keys={"a": hash_of("a")}), serving(predictor))) as client:
        yield client


def test_axe_finds_nothing_from_the_first_look_to_the_answer(sized: Page) -> None:
    expect(sized.locator("#open-model-card")).to_be_enabled()
    assert_accessible(sized, "empty")
    read_example(sized)
    assert_accessible(sized, "answered")
    show_heatmap(sized)
    assert_accessible(sized, "heatmap")


def test_axe_finds_nothing_in_a_list_with_refusals(sized: Page) -> None:
    read(sized, ("noise.png", noise_png()), *EXAMPLES.items(), ("text.png", b"no picture"))
    assert_accessible(sized, "refused")
    sized.locator("#read-anyway").click()
    expect(sized.locator("#verdict")).to_be_visible()
    assert_accessible(sized, "read all the same")


def test_axe_finds_nothing_where_there_are_several_models(
    visitor: Visitor, two_models: httpx.Client, size: dict[str, int]
) -> None:
    page = visitor.open(two_models, viewport=size)
    expect(page.locator("#models")).to_be_visible()
    assert_accessible(page, "empty")
    read_example(page)
    show_heatmap(page)
    page.locator('#models input[value="effusion"]').check()
    expect(page.locator("#verdict")).to_be_visible()
    assert_accessible(page, "another model")


def test_axe_finds_nothing_where_a_model_was_replaced_since(
    visitor: Visitor, predictor: Predictor, successor: Predictor, size: dict[str, int]
) -> None:
    app = create_app(Settings(), serving(predictor))
    with served(app) as client:
        page = visitor.open(client, viewport=size)
        read_example(page)
        app.state.service.serve(serving(successor))
        add(page, ("normal.jpeg", EXAMPLES["normal-1.jpeg"]))
        expect(page.locator("#replaced")).to_be_visible()
        until_read(page, 2)
        assert_accessible(page, "replaced")


def test_axe_finds_nothing_while_the_service_is_busy(sized: Page, visitor: Visitor) -> None:
    visitor.expects("429")
    sized.route(
        "**/predict_batch*",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "60"}, body="{}"),
    )
    add(sized, *EXAMPLES.items())
    expect(sized.locator("#wait")).not_to_be_empty()
    until_shown(sized)
    assert_accessible(sized, "busy")
    sized.locator("#stop").click()
    expect(sized.locator("#continue")).to_be_visible()
    assert_accessible(sized, "stopped")


def test_axe_finds_nothing_in_the_dialogs(sized: Page) -> None:
    expect(sized.locator("#open-model-card")).to_be_enabled()
    for key, dialog in [("?", "#help"), ("m", "#model-card")]:
        sized.keyboard.press(key)
        expect(sized.locator(dialog)).to_be_visible()
        assert_accessible(sized, dialog)
        sized.keyboard.press("Escape")


def test_axe_finds_nothing_in_the_prompt_for_a_key(
    visitor: Visitor, guarded: httpx.Client, size: dict[str, int]
) -> None:
    visitor.expects("401")
    page = visitor.open(guarded, viewport=size)
    expect(page.locator("#key-prompt")).to_be_visible()
    assert_accessible(page, "key")
    page.locator("#key").fill("wrong")
    page.keyboard.press("Enter")
    expect(page.locator("#key-error")).not_to_be_empty()
    assert_accessible(page, "wrong key")


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_nothing_moves_by_itself(visitor: Visitor, client: httpx.Client, motion: str) -> None:
    page = visitor.open(client, reduced_motion=motion)
    read_example(page)
    show_heatmap(page)
    page.locator("#zoom-in").click()
    page.locator("#open-help").click()
    assert page.evaluate("() => document.getAnimations().length") == 0


def test_at_320_px_nothing_lies_beside_the_page(visitor: Visitor, client: httpx.Client) -> None:
    page = visitor.open(client, viewport={"width": 320, "height": 640})
    expect(page.locator("#open-model-card")).to_be_enabled()
    assert_nothing_beside(page)
    for key, dialog in [("?", "#help"), ("m", "#model-card")]:
        page.keyboard.press(key)
        expect(page.locator(dialog)).to_be_visible()
        assert_nothing_beside(page)
        box = page.locator(dialog).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 320
        page.keyboard.press("Escape")
    read(page, ("a" * 120 + ".png", noise_png()), *EXAMPLES.items())
    assert_nothing_beside(page)
    page.locator("#readings button").nth(1).click()
    expect(page.locator("#verdict")).to_be_visible()
    show_heatmap(page)
    assert_nothing_beside(page)


@pytest.fixture
def large_letters(chromium: Browser) -> Iterator[Visitor]:
    """With a browser that is set to letters of 32 px, not 16."""
    arguments = [*ARGUMENTS, "--blink-settings=defaultFontSize=32"]
    browser = chromium.browser_type.launch(executable_path=CHROMIUM, args=arguments)
    visitor = Visitor(browser)
    yield visitor
    visitor.leave()
    browser.close()


def test_with_letters_twice_as_large_nothing_is_cut_off(
    large_letters: Visitor, client: httpx.Client
) -> None:
    assert_whole(large_letters.open(client))


def test_at_a_zoom_of_200_per_cent_nothing_is_cut_off(
    visitor: Visitor, client: httpx.Client
) -> None:
    half = {"width": 720, "height": 450}
    assert_whole(visitor.open(client, viewport=half, device_scale_factor=2))


def assert_whole(page: Page) -> None:
    expect(page.locator("#open-model-card")).to_be_enabled()
    assert_nothing_cut_off(page)
    read_example(page)
    show_heatmap(page)
    assert_nothing_cut_off(page)
    stage = page.locator("#stage").bounding_box()
    assert stage is not None
    assert min(stage["width"], stage["height"]) >= 200


def assert_nothing_cut_off(page: Page) -> None:
    """No sideways scrolling, and every control shows all of its words within the page."""
    assert_nothing_beside(page)
    cut = page.evaluate(
        """() => [...document.querySelectorAll("button, select, label, h1, h2, h3")]
            .filter((e) => e.checkVisibility() && !e.closest("#readings"))
            .filter((e) => {
                const { left, right } = e.getBoundingClientRect();
                const wide = e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0;
                return wide || left < -1 || right > innerWidth + 1;
            })
            .filter((e) => !e.matches(".skip") && getComputedStyle(e).clipPath === "none")
            .map((e) => e.id || e.textContent)"""
    )
    assert cut == []


def test_the_answer_is_announced_in_words(page: Page) -> None:
    read_example(page)
    assert page.locator("#summary").get_attribute("role") == "status"
    bar = page.locator("#bar").get_attribute("aria-label")
    assert bar is not None
    for word in ("screening", "balanced", "rule in"):
        assert word in bar
