"""Of several models one is chosen, and everything follows: words, points and answers."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from chestxray.inference import Population, Predictor
from factories.browser import (
    EXAMPLES,
    Visitor,
    add,
    canvas_pixels,
    grey_of,
    heatmap_label,
    probability_text,
    read,
    read_example,
    rows,
    show_heatmap,
    until_read,
    until_shown,
)
from factories.dicom_files import dicom
from factories.requests import decoded_png, predict, predict_batch

DEFAULT = "resnet18"
OTHER = "effusion"
WORDS = {
    DEFAULT: ("PNEUMONIA", "NORMAL", "pneumonia"),
    OTHER: ("EFFUSION", "DRY", "pleural effusion"),
}
FILES = [*EXAMPLES.items(), ("text.png", b"This is no picture.")]


@pytest.fixture
def page(visitor: Visitor, two_models: httpx.Client) -> Page:
    page = visitor.open(two_models)
    expect(page.locator("#models")).to_be_visible()
    return page


def choose(page: Page, model: str) -> None:
    page.locator(f'#models input[value="{model}"]').check()


def chosen(page: Page) -> str:
    return page.locator("#models input:checked").input_value()


def words_of(results: list[dict[str, Any]]) -> list[str]:
    """What the list must say of the elements of a batch."""
    said = []
    for result in results:
        if "error" in result:
            said.append(f"not judged: {result['error']['title'].lower()}")
        else:
            of = result["prediction"]
            uncertain = ", uncertain" if of["uncertain"] else ""
            said.append(f"{of['label']} {probability_text(of['probability'])}{uncertain}")
    return said


def test_with_one_model_there_is_nothing_to_choose(visitor: Visitor, client: httpx.Client) -> None:
    page = visitor.open(client)
    read_example(page)
    expect(page.locator("#models")).to_be_hidden()
    page.keyboard.press("n")
    expect(page.locator("#label")).to_have_text("PNEUMONIA")
    page.keyboard.press("?")
    expect(page.locator("#keys")).not_to_contain_text("next model")


def test_the_models_offered_are_those_of_the_service_and_its_default_is_chosen(
    page: Page, two_models: httpx.Client
) -> None:
    models = two_models.get("/metadata").json()["models"]
    assert [of["name"] for of in models] == [DEFAULT, OTHER]
    assert page.locator("#models label").all_inner_texts() == [
        f"{name}\n{WORDS[name][2]}" for name in (DEFAULT, OTHER)
    ]
    assert chosen(page) == DEFAULT


@pytest.mark.parametrize("model", [DEFAULT, OTHER])
def test_every_file_is_answered_by_the_model_chosen_at_each_of_its_operating_points(
    page: Page, two_models: httpx.Client, model: str
) -> None:
    read(page, *FILES)
    choose(page, model)
    until_read(page, len(FILES))
    positive, negative, _ = WORDS[model]
    for point in two_models.get("/metadata", params={"model": model}).json()["operating_points"]:
        page.locator(f'#points input[value="{point}"]').check()
        answer = predict_batch(two_models, FILES, model=model, operating_point=point).json()
        assert [row["words"] for row in rows(page)] == words_of(answer["results"])
        labels = [of["prediction"]["label"] for of in answer["results"] if "prediction" in of]
        expect(page.locator("#summary")).to_have_text(
            f"{labels.count(positive)} {positive} · {labels.count(negative)} {negative} · "
            "1 not judged"
        )
        expect(page.locator("#label")).to_have_text(labels[0])
        is_positive = labels[0] == positive
        finding = "positive" if is_positive else "negative"
        expect(page.locator("#verdict")).to_have_attribute("data-finding", finding)


@pytest.mark.parametrize("model", [DEFAULT, OTHER])
def test_the_words_are_those_of_the_models_finding(page: Page, model: str) -> None:
    read_example(page)
    show_heatmap(page)
    choose(page, model)
    expect(page.locator("#verdict")).to_be_visible()
    positive, negative, meaning = WORDS[model]
    expect(page.locator("#verdict")).to_contain_text(f"Calibrated probability of {positive}:")
    expect(page.locator("#colour-bar")).to_contain_text(f"evidence for {positive} (logit)")
    expect(page.locator("#elsewhere")).to_contain_text(f"have {meaning}.")
    expect(page.locator("#elsewhere")).to_contain_text(f"of 100 had {meaning};")
    expect(page.locator("#elsewhere")).to_contain_text(f"share of {positive} answers")
    expect(page.locator("#elsewhere")).to_contain_text(f"of {negative} answers")
    for other in {*WORDS} - {model}:
        for word in WORDS[other]:
            expect(page.locator("#verdict")).not_to_contain_text(word)
            expect(page.locator("#judging")).not_to_contain_text(word)


def test_card_and_identity_are_the_chosen_models(page: Page, two_models: httpx.Client) -> None:
    for model in (OTHER, DEFAULT):
        choose(page, model)
        metadata = two_models.get("/metadata", params={"model": model}).json()
        expect(page.locator("#identity")).to_have_text(
            f"Answered by model {model}, bundle {metadata['bundle_sha256'][:12]}."
        )
        page.locator("#open-model-card").click()
        card = page.locator("#model-card-content")
        expect(card).to_contain_text(metadata["bundle_sha256"])
        knows = Population.model_validate(metadata["population"])
        expect(card).to_contain_text(f"{knows.ages}")
        expect(card.locator("tr", has_text="name").first).to_contain_text(model)
        page.keyboard.press("Escape")


def test_what_a_model_has_said_is_not_asked_again(page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    read(page, *FILES)
    said = [row["words"] for row in rows(page)]
    choose(page, OTHER)
    until_read(page, len(FILES))
    assert len([url for url in asked if "predict_batch" in url]) == 2 * len(FILES)
    assert len([url for url in asked if f"model={OTHER}" in url]) == len(FILES)
    choose(page, DEFAULT)
    assert [row["words"] for row in rows(page)] == said
    choose(page, OTHER)
    until_read(page, len(FILES))
    assert len([url for url in asked if "predict_batch" in url]) == 2 * len(FILES)


def test_each_model_keeps_its_operating_point_and_its_prevalence(page: Page) -> None:
    read_example(page)
    page.locator('#points input[value="rule_in"]').check()
    page.locator("#prevalence").fill("3")
    choose(page, OTHER)
    expect(page.locator("#verdict")).to_be_visible()
    expect(page.locator("#points input:checked")).to_have_value("balanced")
    expect(page.locator("#prevalence")).to_have_value("10")
    choose(page, DEFAULT)
    expect(page.locator("#points input:checked")).to_have_value("rule_in")
    expect(page.locator("#prevalence")).to_have_value("3")
    expect(page.locator("#prevalence-slider")).to_have_value("3")


def test_a_model_is_chosen_by_keyboard(page: Page, visitor: Visitor) -> None:
    visitor.allows("net::ERR_ABORTED")  # what one model had not answered when another was chosen
    read_example(page)
    page.keyboard.press("n")
    expect(page.locator("#identity")).to_contain_text(OTHER)
    assert chosen(page) == OTHER
    page.keyboard.press("n")
    assert chosen(page) == DEFAULT
    page.locator("#models input:checked").focus()
    page.keyboard.press("ArrowDown")
    assert chosen(page) == OTHER
    expect(page.locator("#identity")).to_contain_text(OTHER)
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_contain_text("next model")


def test_another_model_chosen_while_files_are_read_answers_them_all(
    page: Page, visitor: Visitor, two_models: httpx.Client
) -> None:
    visitor.allows("net::ERR_ABORTED")  # as above
    page.route("**/predict_batch*", lambda _: None)
    add(page, *FILES)
    expect(page.locator("#readings [data-state=reading]").first).to_be_visible()
    page.unroute_all()
    for model in (OTHER, DEFAULT, OTHER):
        choose(page, model)
    until_read(page, len(FILES))
    results = predict_batch(two_models, FILES, model=OTHER).json()["results"]
    assert [row["words"] for row in rows(page)] == words_of(results)


def test_the_picture_stays_as_it_is_looked_at_and_the_heatmap_is_the_models(
    page: Page, two_models: httpx.Client
) -> None:
    read_example(page)
    show_heatmap(page)
    page.locator("#zoom-in").click()
    page.locator("#invert").click()
    by_default = canvas_pixels(page)
    of_model = {
        model: two_models.get("/metadata", params={"model": model}).json()
        for model in (DEFAULT, OTHER)
    }
    label = {model: heatmap_label("pneumonia-1.jpeg", of) for model, of in of_model.items()}
    choose(page, OTHER)
    expect(page.locator("#picture")).to_have_attribute("aria-label", label[OTHER])
    expect(page.locator("#readout")).to_contain_text("zoom 1.3×")
    scale = of_model[OTHER]["evidence"]["scale"]
    expect(page.locator("#colour-bar-ticks")).to_contain_text(f"≥ {scale:.1f}")
    assert not np.array_equal(canvas_pixels(page), by_default)
    choose(page, DEFAULT)
    expect(page.locator("#picture")).to_have_attribute("aria-label", label[DEFAULT])
    assert np.array_equal(canvas_pixels(page), by_default)


def test_what_the_network_saw_is_what_the_chosen_models_network_saw(
    page: Page, two_models: httpx.Client, predictor: Predictor
) -> None:
    data = dicom(grey_of(EXAMPLES["normal-1.jpeg"]), bits=8, PatientAge=None, PatientBirthDate=None)
    read(page, ("IM000001", data))
    of_default = predictor.manifest.preprocessing.side_px
    for model, side_px in ((DEFAULT, of_default), (OTHER, 64), (DEFAULT, of_default)):
        choose(page, model)
        until_read(page, 1)
        until_shown(page)
        expect(page.locator("#file-name")).to_have_text("IM000001 (as the network saw it)")
        preview = predict(two_models, data, model=model, preview=True).json()["preview"]
        with Image.open(io.BytesIO(decoded_png(preview))) as seen:
            assert seen.size == (side_px, side_px)
            shown = canvas_pixels(page)[..., 0]
            box_px = min(shown.shape)
            y, x = ((of - box_px) // 2 for of in shown.shape)
            expected = np.asarray(seen.convert("L").resize((box_px, box_px)), float)
        difference = np.abs(shown[y : y + box_px, x : x + box_px] - expected)
        assert difference.mean() < 3


def test_what_is_taken_away_names_the_chosen_model(page: Page, two_models: httpx.Client) -> None:
    read(page, *FILES)
    choose(page, OTHER)
    until_read(page, len(FILES))
    until_shown(page)
    bundle = two_models.get("/metadata", params={"model": OTHER}).json()["bundle_sha256"]

    saved_rows = list(
        csv.DictReader(io.StringIO(saved(page, "#save-csv"), newline=""), strict=True)
    )
    assert {(row["model"], row["bundle_sha256"]) for row in saved_rows} == {(OTHER, bundle)}
    results = json.loads(saved(page, "#save-json"))["results"]
    models = [of["prediction"]["model"] for of in results if "prediction" in of]
    assert models == [{"name": OTHER, "bundle_sha256": bundle}] * len(EXAMPLES)

    page.evaluate("() => { window.dispatchEvent(new Event('beforeprint')); }")
    expect(page.locator("#report-file")).to_contain_text(f"model {OTHER}, bundle {bundle[:12]}")
    page.emulate_media(media="print")
    expect(page.locator("#models")).to_be_hidden()


def saved(page: Page, selector: str) -> str:
    """The content of the file that a button saves."""
    with page.expect_download() as download:
        page.locator(selector).click()
    return Path(download.value.path()).read_text(encoding="utf-8")
