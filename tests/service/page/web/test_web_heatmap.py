"""A heatmap that is not validated says so where the reader looks; a validated one is plain."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Page, expect

from chestxray.assessment import Registry
from chestxray.inference import Predictor
from chestxray.inference.rendering import NOT_VALIDATED
from chestxray.service.api.served import Served
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.browser import (
    EXAMPLES,
    Visitor,
    heatmap_label,
    read,
    read_example,
    show_heatmap,
    until_shown,
)
from factories.bundles import VALIDATION, tiny_manifest, tiny_model, write_tiny_bundle
from factories.requests import predict
from factories.servers import served

EXAMPLE = "pneumonia-1.jpeg"
REMARK = "Heatmap not validated: nothing shows that it points at the finding."
SIZES = [(390, 844), (1024, 768), (1440, 900)]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """``unvalidated``, the default, and ``validated``: one network that takes any picture."""
    check = tiny_manifest(tiny_model()).input_check.model_dump() | {"distance_at_threshold": 1e6}
    folder = tmp_path_factory.mktemp("bundles")
    predictors = {
        name: Predictor.load(
            write_tiny_bundle(folder / name, validated=name == "validated", input_check=check)
        )
        for name in ("unvalidated", "validated")
    }
    with served(create_app(Settings(), Served(Registry(predictors)))) as client:
        yield client


@pytest.fixture
def page(visitor: Visitor, both: httpx.Client) -> Page:
    page = visitor.open(both)
    expect(page.locator("#models")).to_be_visible()
    return page


def choose(page: Page, model: str) -> None:
    page.locator(f'#models input[value="{model}"]').check()
    expect(page.locator("#identity")).to_contain_text(f"model {model},")


def label_by(both: httpx.Client, model: str) -> str:
    return heatmap_label(EXAMPLE, both.get("/metadata", params={"model": model}).json())


def apart(one: dict[str, float], other: dict[str, float]) -> bool:
    return (
        one["x"] + one["width"] <= other["x"]
        or other["x"] + other["width"] <= one["x"]
        or one["y"] + one["height"] <= other["y"]
        or other["y"] + other["height"] <= one["y"]
    )


def test_beside_the_switch_it_says_that_the_heatmap_is_not_validated_before_it_is_shown(
    page: Page,
) -> None:
    read_example(page, EXAMPLE)
    expect(page.locator("#not-validated")).to_be_visible()
    expect(page.locator("#not-validated")).to_have_text("not validated")
    expect(page.locator("#evidence-remark")).to_contain_text(REMARK)
    expect(page.locator("#heatmap-caution")).to_be_hidden()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_over_the_picture_it_says_so_as_long_as_the_heatmap_is_shown(
    visitor: Visitor, both: httpx.Client, size: tuple[int, int]
) -> None:
    page = visitor.open(both, viewport={"width": size[0], "height": size[1]})
    read_example(page, EXAMPLE)
    show_heatmap(page)
    caution = page.locator("#heatmap-caution")
    expect(caution).to_be_visible()
    expect(caution).to_have_text("Heatmap not validated")
    expect(page.locator("#picture")).to_have_attribute("aria-label", label_by(both, "unvalidated"))
    boxes = {
        name: page.locator(f"#{name}").bounding_box()
        for name in ("heatmap-caution", "stage", "colour-bar", "file-name", "readout")
    }
    said, stage = boxes.pop("heatmap-caution"), boxes.pop("stage")
    assert said
    assert stage
    assert stage["x"] <= said["x"]
    assert said["x"] + said["width"] <= stage["x"] + stage["width"]
    assert stage["y"] <= said["y"]
    assert said["y"] + said["height"] <= stage["y"] + stage["height"]
    for other in boxes.values():
        assert other
        assert apart(said, other)
    page.locator("#heatmap").click()
    expect(caution).to_be_hidden()


def test_a_validated_heatmap_is_shown_without_a_caution(page: Page, both: httpx.Client) -> None:
    choose(page, "validated")
    read_example(page, EXAMPLE)
    show_heatmap(page)
    expect(page.locator("#picture")).to_have_attribute("aria-label", label_by(both, "validated"))
    expect(page.locator("#not-validated")).to_be_hidden()
    expect(page.locator("#heatmap-caution")).to_be_hidden()
    expect(page.locator("#evidence-remark")).not_to_contain_text("validated")


def test_the_caution_is_that_of_the_model_chosen(page: Page) -> None:
    read_example(page, EXAMPLE)
    show_heatmap(page)
    for model, hidden in (("validated", True), ("unvalidated", False)):
        choose(page, model)
        expect(page.locator("#colour-bar")).to_be_visible()
        for caution in ("#not-validated", "#heatmap-caution"):
            expect(page.locator(caution)).to_be_visible(visible=not hidden)


def test_the_services_warning_of_the_heatmap_is_not_said_of_the_answer(
    page: Page, both: httpx.Client
) -> None:
    data = EXAMPLES[EXAMPLE]
    assert predict(both, data, heatmap=True).json()["warnings"][-1] == NOT_VALIDATED
    read(page, (EXAMPLE, data))
    until_shown(page)
    expect(page.locator("#warnings li")).to_have_count(0)
    expect(page.locator("#readings .warned")).to_be_hidden()
    expect(page.locator("#remarks")).not_to_contain_text("validated")


def test_paper_says_that_the_heatmap_on_it_is_not_validated(page: Page) -> None:
    read_example(page, EXAMPLE)
    remark = page.locator("#report-remark")
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    expect(remark).to_have_text("")
    show_heatmap(page)
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    expect(remark).to_contain_text(REMARK)


def test_the_model_card_says_whether_and_on_what_the_heatmap_is_validated(page: Page) -> None:
    card = page.locator("#model-card-content")
    expect(card).to_contain_text("not validated")
    choose(page, "validated")
    expect(card).not_to_contain_text("not validated")
    for figure in (f"n = {VALIDATION['n']}", "90 %", "70 %", "AUPRC 0.600, by chance 0.100"):
        expect(card).to_contain_text(figure)
