"""What the model does not know is refused in plain words, and answered with a warning if wanted."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from chestxray.assessment.policy import NOT_A_CHEST, Choices, Policy
from chestxray.imaging import Acquisition
from chestxray.inference import Population, Predictor
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.browser import (
    EXAMPLES,
    Visitor,
    grey_of,
    noise_png,
    probability_text,
    read,
    read_example,
    rows,
    sentence,
    until_shown,
)
from factories.bundles import POPULATION, write_tiny_bundle
from factories.dicom_files import dicom
from factories.requests import predict, radiograph_png
from factories.servers import served, serving


def chest(**attributes: Any) -> bytes:
    """An example as DICOM, of a patient of three years unless told otherwise."""
    return dicom(grey_of(EXAMPLES["pneumonia-1.jpeg"]), bits=8, **attributes)


SCHOOLCHILD = {"PatientAge": "010Y", "PatientBirthDate": None}

UNKNOWN = {
    "age": (SCHOOLCHILD, {"population": "warn"}, "not judged: patient of another age"),
    "view": ({"ViewPosition": "LL"}, {"acquisition": "warn"}, "not judged: wrong view"),
    "body part": (
        {"BodyPartExamined": "ABDOMEN"},
        {"acquisition": "warn"},
        "not judged: wrong body part",
    ),
    "modality": ({"Modality": "MG"}, {"acquisition": "warn"}, "not judged: wrong modality"),
}


@pytest.mark.parametrize("unknown", UNKNOWN)
def test_what_the_model_does_not_know_is_refused_and_answered_with_a_warning_if_wanted(
    page: Page, client: httpx.Client, unknown: str
) -> None:
    attributes, overruling, words = UNKNOWN[unknown]
    data = chest(**attributes)
    read(page, ("IM000001", data))
    problem = predict(client, data).json()
    assert rows(page)[0]["words"] == words
    expect(page.locator("#refusal-detail")).to_have_text(sentence(problem["detail"]))
    expect(page.locator("#refusal-check")).to_contain_text(
        "not meant for this age" if unknown == "age" else "The model learned from no"
    )
    expect(page.locator("#refusal-code")).to_contain_text(problem["code"])
    expect(page.locator("#picture-note")).to_contain_text("comes with an answer")

    page.locator("#read-anyway").click()
    expect(page.locator("#verdict")).to_be_visible()
    expect(page.locator("#refusal")).to_be_hidden()
    answer = predict(client, data, **overruling).json()
    assert answer["warnings"] == [problem["detail"]]
    assert page.locator("#warnings li").all_inner_texts() == [sentence(problem["detail"])]
    expect(page.locator("#remarks")).to_be_empty()
    expect(page.locator("#probability")).to_have_text(probability_text(answer["probability"]))
    until_shown(page)
    expect(page.locator("#file-name")).to_have_text("IM000001 (as the network saw it)")


def test_each_reason_to_refuse_is_told_before_it_is_overruled(page: Page) -> None:
    read(page, ("IM000001", chest(ViewPosition="LL", **SCHOOLCHILD)))
    expect(page.locator("#refusal-title")).to_have_text("Wrong view")
    page.locator("#read-anyway").click()
    expect(page.locator("#refusal-title")).to_have_text("Patient of another age")
    page.locator("#read-anyway").click()
    expect(page.locator("#verdict")).to_be_visible()
    assert len(page.locator("#warnings li").all()) == 2


def test_one_file_overruled_leaves_the_others_refused(page: Page) -> None:
    read(
        page,
        ("IM000001", chest(**SCHOOLCHILD)),
        ("IM000002", chest(**SCHOOLCHILD)),
        ("IM3", chest()),
    )
    page.locator("#read-anyway").click()
    expect(page.locator("#verdict")).to_be_visible()
    assert [row["state"] for row in rows(page)] == ["answered", "failed", "answered"]


def test_what_one_model_may_answer_all_the_same_another_still_refuses(
    visitor: Visitor, two_models: httpx.Client
) -> None:
    page = visitor.open(two_models)
    read(page, ("IM000001", chest(Modality="MG", **SCHOOLCHILD)))
    page.locator("#read-anyway").click()
    expect(page.locator("#refusal-title")).to_have_text("Patient of another age")
    page.locator("#read-anyway").click()
    expect(page.locator("#label")).to_have_text("PNEUMONIA")
    page.keyboard.press("n")
    expect(page.locator("#refusal-title")).to_have_text("Wrong modality")
    page.locator("#read-anyway").click()
    expect(page.locator("#verdict")).to_be_visible()
    assert len(page.locator("#warnings li").all()) == 1  # schoolchildren it knows


def test_the_warning_stands_with_the_answer_wherever_it_is_taken(
    page: Page, client: httpx.Client
) -> None:
    data = chest(**SCHOOLCHILD)
    read(page, ("IM000001", data), ("plain.jpeg", EXAMPLES["normal-1.jpeg"]))
    page.locator("#read-anyway").click()
    expect(page.locator("#verdict")).to_be_visible()
    until_shown(page)
    (warning,) = predict(client, data, population="warn").json()["warnings"]

    row, _ = csv.DictReader(io.StringIO(saved(page, "#save-csv").decode(), newline=""))
    assert row["warnings"] == warning
    result, _ = json.loads(saved(page, "#save-json"))["results"]
    assert result["prediction"]["warnings"] == [warning]

    caption = saved_caption(page)
    assert f"Warning: {sentence(warning)}" in caption
    page.evaluate("() => { window.dispatchEvent(new Event('beforeprint')); }")
    page.emulate_media(media="print")
    expect(page.locator("#warnings li")).to_be_visible()


def test_that_the_age_is_not_known_is_said_once_and_without_a_warnings_sign(
    page: Page, client: httpx.Client
) -> None:
    read_example(page)
    (of_age,) = predict(client, EXAMPLES["pneumonia-1.jpeg"]).json()["warnings"]
    said = sentence(of_age)
    assert page.locator("body").inner_text().count(said) == 1
    expect(page.locator("#remarks")).to_have_text(said)
    caption = saved_caption(page)
    assert said in caption
    assert "Warning" not in caption
    page.emulate_media(media="print")
    expect(page.locator("#remarks")).to_be_visible()


@pytest.mark.parametrize("ages", [(1, 5), ((1, 5), (18, 90)), None])
def test_the_page_knows_the_policys_words_for_an_age_that_is_not_known(
    page: Page, ages: tuple[Any, ...] | None
) -> None:
    knows = Population.model_validate(POPULATION | {"age_years": ages})
    (of_age,) = Policy("balanced", Choices(), knows).admit(Acquisition())
    assert told_apart(page, of_age) == {"warnings": [], "remarks": [sentence(of_age)]}


def test_of_the_policys_other_warnings_none_is_taken_for_it(page: Page) -> None:
    knows = Population.model_validate(POPULATION)
    all_the_same = Choices(population="warn", acquisition="warn")
    unknown = Acquisition(modality="MG", body_part="ABDOMEN", view="LATERAL", age_years=61)
    warnings = [*Policy("balanced", all_the_same, knows).admit(unknown), NOT_A_CHEST]
    assert len(warnings) == 5
    expected = {"warnings": [sentence(text) for text in warnings], "remarks": []}
    assert told_apart(page, *warnings) == expected


def told_apart(page: Page, *warnings: str) -> dict[str, list[str]]:
    """What the page makes of an answer's warnings."""
    return page.evaluate(
        """async (warnings) => {
            const words = await import("/page/words.js");
            return words.warnings({ warnings });
        }""",
        list(warnings),
    )


def test_in_the_list_an_answer_with_a_warning_bears_a_sign(page: Page) -> None:
    files = [
        ("of a schoolchild", chest(**SCHOOLCHILD)),
        ("noise.png", noise_png()),
        ("of no known age.jpeg", EXAMPLES["normal-1.jpeg"]),
        ("of a child", chest()),
    ]
    read(page, *files)
    signs = page.locator("#readings").get_by_role("img", name="with a warning")
    expect(signs).to_have_count(0)
    for i in range(2):
        page.locator("#readings button").nth(i).click()
        page.locator("#read-anyway").click()
        expect(page.locator("#verdict")).to_be_visible()
        expect(signs).to_have_count(i + 1)
    signed = page.locator("#readings button", has=page.locator(".warned:visible"))
    assert signed.locator(".name").all_inner_texts() == [name for name, _ in files[:2]]


def test_so_it_is_where_the_model_knows_of_no_ages(visitor: Visitor, tmp_path: Path) -> None:
    ages = POPULATION | {"age_years": None}
    predictor = Predictor.load(write_tiny_bundle(tmp_path, population=ages))
    with served(create_app(Settings(), serving(predictor))) as client:
        page = visitor.open(client)
        data = radiograph_png()
        read(page, ("radiograph.png", data))
        (of_age,) = predict(client, data).json()["warnings"]
        expect(page.locator("#remarks")).to_have_text(sentence(of_age))
        expect(page.locator("#warnings li")).to_have_count(0)
        page.keyboard.press("m")
        expect(page.locator("#model-card-content")).to_contain_text("it does not say which")


def saved(page: Page, selector: str) -> bytes:
    """The content of the file that a button saves."""
    with page.expect_download() as download:
        page.locator(selector).click()
    return Path(download.value.path()).read_bytes()


def saved_caption(page: Page) -> str:
    """What is written into the picture that is saved, without its line breaks."""
    page.evaluate(
        """() => {
            window.written = [];
            const { fillText } = CanvasRenderingContext2D.prototype;
            CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
                window.written.push(text);
                fillText.call(this, text, ...place);
            };
        }"""
    )
    saved(page, "#save-png")
    return page.evaluate("() => window.written.join(' ')")
