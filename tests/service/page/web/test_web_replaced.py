"""A bundle is replaced while the page is open: the page goes on, and what was answered stays so."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import APIResponse, Page, Route, expect

from chestxray.inference import Predictor
from chestxray.service.api.state import Service
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.browser import (
    EXAMPLES,
    File,
    Visitor,
    add,
    canvas_pixels,
    grey_of,
    heatmap_label,
    probability_text,
    read,
    rows,
    show_heatmap,
    until_read,
    until_shown,
)
from factories.dicom_files import dicom
from factories.requests import predict_batch
from factories.servers import served, serving

EARLIER = [("earlier 1", EXAMPLES["pneumonia-1.jpeg"]), ("earlier 2", EXAMPLES["normal-2.jpeg"])]
LATER = [(f"later {name}", data) for name, data in EXAMPLES.items()]
MARK = ", earlier bundle"


@dataclass(frozen=True)
class Replaceable:
    """A service whose bundle is replaced at will, as SIGHUP does."""

    client: httpx.Client
    service: Service
    before: Predictor
    after: Predictor

    def replace(self) -> None:
        self.service.serve(serving(self.after))

    def put_back(self) -> None:
        self.service.serve(serving(self.before))

    def metadata(self) -> dict[str, Any]:
        return self.client.get("/metadata").json()

    def words(self, files: list[File], **query: Any) -> list[str]:
        """What the list must say of files by the bundle at work."""
        results = predict_batch(self.client, files, **query).json()["results"]
        predictions = [result["prediction"] for result in results]
        return [
            f"{of['label']} {probability_text(of['probability'])}"
            f"{', uncertain' if of['uncertain'] else ''}"
            for of in predictions
        ]


@pytest.fixture
def replaceable(predictor: Predictor, successor: Predictor) -> Iterator[Replaceable]:
    app = create_app(Settings(), serving(predictor))
    with served(app) as client:
        yield Replaceable(client, app.state.service, predictor, successor)


@pytest.fixture
def page(visitor: Visitor, replaceable: Replaceable) -> Page:
    """The page with what the first bundle has answered."""
    page = visitor.open(replaceable.client)
    read(page, *EARLIER)
    return page


@pytest.fixture
def asked(page: Page) -> list[str]:
    """How often the service is asked for its metadata from now on."""
    asked: list[str] = []
    page.on("request", lambda of: asked.append(of.url) if "/metadata" in of.url else None)
    return asked


def words(page: Page) -> list[str]:
    return [row["words"] for row in rows(page)]


def look_at(page: Page, number: int) -> None:
    page.locator("#readings button").nth(number).click()
    until_shown(page)


def read_more(page: Page, *files: File) -> None:
    """Add files to those of EARLIER and wait until all are read."""
    add(page, *files)
    until_read(page, len(EARLIER) + len(files))


def test_what_another_bundle_answers_is_judged_by_its_own_facts(
    page: Page, replaceable: Replaceable, asked: list[str]
) -> None:
    replaceable.replace()
    read_more(page, *LATER)
    assert len(asked) == 1  # four at a time had noticed
    assert words(page)[2:] == replaceable.words(LATER)
    look_at(page, 2)
    metadata = replaceable.metadata()
    expect(page.locator("#label")).to_have_text("CLEAR")
    expect(page.locator("#replaced")).to_be_hidden()
    expect(page.locator("#identity")).to_contain_text(metadata["bundle_sha256"][:12])
    expect(page.locator("#judging")).to_contain_text("CLEAR answers")
    for name, point in metadata["operating_points"].items():
        choice = page.locator("#points label", has=page.locator(f"[value={name}]"))
        expect(choice).to_contain_text(f"from {point['threshold']:.3f}")
    page.keyboard.press("m")
    expect(page.locator("#model-card-content")).to_contain_text(metadata["bundle_sha256"])


def test_earlier_answers_stay_as_they_were_answered_at_every_operating_point(
    page: Page, replaceable: Replaceable
) -> None:
    points = replaceable.metadata()["operating_points"]
    said = {point: replaceable.words(EARLIER, operating_point=point) for point in points}
    bundle = replaceable.metadata()["bundle_sha256"]
    replaceable.replace()
    read_more(page, *LATER)
    until_shown(page)
    expect(page.locator("#replaced")).to_contain_text("The model was replaced since.")
    expect(page.locator("#label")).to_have_text("PNEUMONIA")
    expect(page.locator("#identity")).to_contain_text(bundle[:12])
    for point, facts in points.items():
        page.locator(f'#points input[value="{point}"]').check()
        assert words(page)[:2] == [f"{text}{MARK}" for text in said[point]]
        assert words(page)[2:] == replaceable.words(LATER, operating_point=point)
        choice = page.locator("#points label", has=page.locator(f"[value={point}]"))
        expect(choice).to_contain_text(f"from {facts['threshold']:.3f}")
    found = [row["words"].partition(" ")[0] for row in rows(page)]
    counted = [
        f"{found.count(label)} {label}" for label in ("OPACITY", "CLEAR", "PNEUMONIA", "NORMAL")
    ]
    for text in counted:
        if not text.startswith("0"):
            expect(page.locator("#summary")).to_contain_text(text)


def test_an_earlier_answer_is_asked_again_when_the_reader_wants_it(
    page: Page, replaceable: Replaceable
) -> None:
    show_heatmap(page)
    earlier = canvas_pixels(page)
    replaceable.replace()
    read_more(page, LATER[0])
    assert np.array_equal(canvas_pixels(page), earlier)
    page.locator("#read-again").click()
    expect(page.locator("#label")).to_have_text("OPACITY")
    expect(page.locator("#replaced")).to_be_hidden()
    expect(page.locator("#identity")).to_contain_text(replaceable.metadata()["bundle_sha256"][:12])
    (by_the_new,) = replaceable.words(EARLIER[:1])
    assert words(page)[0] == by_the_new
    assert words(page)[1].endswith(MARK)
    expect(page.locator("#picture")).to_have_attribute(
        "aria-label", heatmap_label("earlier 1", replaceable.metadata())
    )


def test_a_file_that_only_the_service_can_show_is_asked_again_too(
    visitor: Visitor, replaceable: Replaceable
) -> None:
    page = visitor.open(replaceable.client)
    read(page, ("IM000001", dicom(grey_of(EXAMPLES["pneumonia-1.jpeg"]), bits=8)))
    replaceable.replace()
    add(page, LATER[0])
    until_read(page, 2)
    page.locator("#read-again").click()
    expect(page.locator("#replaced")).to_be_hidden()
    until_read(page, 2)
    until_shown(page)
    expect(page.locator("#file-name")).to_have_text("IM000001 (as the network saw it)")


def test_a_replaced_model_keeps_the_readers_operating_point_and_prevalence(
    page: Page, replaceable: Replaceable
) -> None:
    page.locator('#points input[value="rule_in"]').check()
    page.locator("#prevalence").fill("3")
    replaceable.replace()
    read_more(page, *LATER)
    for number in (2, 0, 2):
        look_at(page, number)
        expect(page.locator("#points input:checked")).to_have_value("rule_in")
        expect(page.locator("#prevalence")).to_have_value("3")
    page.locator("#prevalence").fill("20")
    look_at(page, 0)
    expect(page.locator("#prevalence")).to_have_value("20")


def test_what_is_taken_away_names_the_bundle_of_each_answer(
    page: Page, replaceable: Replaceable
) -> None:
    before = replaceable.metadata()
    replaceable.replace()
    after = replaceable.metadata()
    read_more(page, LATER[0])
    add(page, ("text.png", b"This is no picture."))
    until_read(page, 4)
    bundles = [before["bundle_sha256"]] * 2 + [after["bundle_sha256"]] * 2
    thresholds = [of["operating_points"]["balanced"]["threshold"] for of in (before, after)]

    saved_rows = list(csv.DictReader(io.StringIO(saved(page, "#save-csv"), newline="")))
    assert [row["bundle_sha256"] for row in saved_rows] == bundles
    assert [float(row["threshold"]) for row in saved_rows] == [
        thresholds[0],
        thresholds[0],
        thresholds[1],
        thresholds[1],
    ]
    results = json.loads(saved(page, "#save-json"))["results"][:3]
    predictions = [result["prediction"] for result in results]
    assert [of["model"]["bundle_sha256"] for of in predictions] == bundles[:3]
    assert [of["threshold"] for of in predictions] == [
        float(row["threshold"]) for row in saved_rows[:3]
    ]
    assert [of["label"] for of in predictions] == [row["label"] for row in saved_rows[:3]]
    for number in (0, 2):
        look_at(page, number)
        page.evaluate("() => { window.dispatchEvent(new Event('beforeprint')); }")
        expect(page.locator("#report-file")).to_contain_text(f"bundle {bundles[number][:12]}")
    look_at(page, 0)
    page.emulate_media(media="print")
    expect(page.locator("#replaced p")).to_be_visible()
    expect(page.locator("#read-again")).to_be_hidden()


def test_a_bundle_that_is_put_back_is_at_work_again(page: Page, replaceable: Replaceable) -> None:
    said = replaceable.words(EARLIER)
    replaceable.replace()
    read_more(page, LATER[0])
    replaceable.put_back()
    add(page, *LATER[:2])
    until_read(page, 5)
    assert words(page)[:2] == said
    assert words(page)[2].endswith(MARK)
    assert words(page)[3:] == replaceable.words(LATER[:2])


def test_an_answer_that_was_under_way_when_the_bundle_was_replaced_is_the_earlier_ones(
    page: Page, replaceable: Replaceable
) -> None:
    held: list[tuple[Route, APIResponse]] = []
    page.route("**/predict_batch*", lambda route: held.append((route, route.fetch())), times=1)
    (said,) = replaceable.words(LATER[:1])
    with page.expect_event("request", lambda of: "predict_batch" in of.url):
        add(page, LATER[0])
    while not held:
        page.wait_for_timeout(10)
    replaceable.replace()
    add(page, LATER[1])
    expect(page.locator("#readings [data-state=answered]")).to_have_count(3)
    ((route, response),) = held
    route.fulfill(response=response)
    until_read(page, 4)
    assert words(page)[2:] == [f"{said}{MARK}", *replaceable.words(LATER[1:2])]


def test_metadata_that_the_service_tells_later_is_waited_for(
    page: Page, visitor: Visitor, replaceable: Replaceable
) -> None:
    visitor.expects("503")
    page.route(
        "**/metadata*",
        lambda route: route.fulfill(status=503, headers={"Retry-After": "1"}, body="{}"),
        times=1,
    )
    replaceable.replace()
    read_more(page, *LATER[:2])
    assert words(page)[2:] == replaceable.words(LATER[:2])


def saved(page: Page, selector: str) -> str:
    """The content of the file that a button saves."""
    with page.expect_download() as download:
        page.locator(selector).click()
    return Path(download.value.path()).read_text(encoding="utf-8")
