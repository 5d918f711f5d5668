"""Files go in by every door, and each is shown as the service answers it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories import images
from factories.browser import (
    EXAMPLES,
    File,
    Visitor,
    add,
    enlarged_jpeg,
    grey_16bit_png,
    grey_of,
    noise_png,
    payloads,
    probability_text,
    read,
    rows,
    sentence,
    until_read,
    until_shown,
)
from factories.requests import predict, predict_batch
from factories.servers import served, serving

ONE = ("pneumonia-1.jpeg", EXAMPLES["pneumonia-1.jpeg"])
MAX_FILE_BYTES = 20_000
AGE_IS_NOT_KNOWN = (
    "the patient's age is not known: "
    "the model is meant only for patients aged 1 to 5 or 18 to 90 years"
)


def many_files() -> list[File]:
    """Each example as four kinds of file, and what is no radiograph, or no picture at all."""
    good = []
    for name, data in EXAMPLES.items():
        stem, grey = Path(name).stem, grey_of(data)
        good += [
            (name, data),
            (f"{stem}.png", images.png(grey)),
            (f"{stem} 16 bits.png", grey_16bit_png(grey)),
            (f"{stem} large.jpg", enlarged_jpeg(data, 1600, 1300)),
        ]
    jpeg = EXAMPLES["normal-1.jpeg"]
    bad = [
        ("text.png", b"This is no picture."),
        ("nothing.jpeg", b""),
        ("half.jpeg", jpeg[: len(jpeg) // 2]),
        ("picture.gif", images.gif()),
        ("moving.png", images.apng()),
        ("noise.png", noise_png()),
        ("dot.png", images.png(images.smooth(20, 20))),
        ("häßlich 肺.txt", b"\x00\x01"),
    ]
    return [file for pair in zip(good[::2], good[1::2], bad, strict=True) for file in pair]


def answered_words(prediction: dict[str, Any]) -> str:
    uncertain = ", uncertain" if prediction["uncertain"] else ""
    return f"{prediction['label']} {probability_text(prediction['probability'])}{uncertain}"


def expected_rows(results: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What the list must show for the elements of a batch."""
    shown = []
    for result in results:
        if "error" in result:
            words = f"not judged: {result['error']['title'].lower()}"
            state, finding = "failed", ""
        else:
            words = answered_words(result["prediction"])
            is_positive = result["prediction"]["label"] == "PNEUMONIA"
            state, finding = "answered", "positive" if is_positive else "negative"
        shown.append(
            {"name": result["filename"], "words": words, "state": state, "finding": finding}
        )
    return shown


def test_one_file_is_answered_as_predict_answers_it(page: Page, client: httpx.Client) -> None:
    name, data = "chest.jpeg", EXAMPLES["normal-2.jpeg"]
    read(page, (name, data))
    answer = predict(client, data).json()
    expect(page.locator("#label")).to_have_text(answer["label"])
    expect(page.locator("#probability")).to_have_text(probability_text(answer["probability"]))
    assert page.locator("#uncertain").is_visible() is answer["uncertain"]
    assert f"{answer['input_check']['score']:.2f}" in page.locator("#input-check").inner_text()
    assert answer["warnings"] == [AGE_IS_NOT_KNOWN]
    expect(page.locator("#remarks")).to_have_text(sentence(AGE_IS_NOT_KNOWN))
    expect(page.locator("#warnings li")).to_have_count(0)  # it stands on nearly every answer
    expect(page.locator("#refusal")).to_be_hidden()
    expect(page.locator("#file-name")).to_have_text(name)
    expect(page.locator("#picture")).to_have_attribute("aria-label", f"Radiograph {name}")


def test_the_examples_offered_are_those_that_ship(page: Page) -> None:
    offered = page.locator("#examples button")
    expect(offered).to_have_text(
        [Path(name).stem.replace("-", " ").capitalize() for name in EXAMPLES]
    )
    sources = offered.locator("img").evaluate_all(
        "(of) => of.map((img) => img.getAttribute('src'))"
    )
    assert sources == [f"page/examples/{name}" for name in EXAMPLES]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_answered_as_the_file_is(page: Page, client: httpx.Client, name: str) -> None:
    page.locator(f'[data-example="{name}"]').click()
    until_read(page, 1)
    answer = predict(client, EXAMPLES[name]).json()
    assert answer["label"] == name.partition("-")[0].upper()
    expect(page.locator("#label")).to_have_text(answer["label"])
    expect(page.locator("#probability")).to_have_text(probability_text(answer["probability"]))
    until_shown(page)
    expect(page.locator("#welcome")).to_be_hidden()


def test_a_warning_of_the_service_is_shown(page: Page, client: httpx.Client) -> None:
    negative = images.png(255 - grey_of(EXAMPLES["pneumonia-1.jpeg"]))
    warning, of_age = predict(client, negative).json()["warnings"]
    read(page, ("negative.png", negative))
    assert page.locator("#warnings li").all_inner_texts() == [sentence(warning)]
    expect(page.locator("#remarks")).to_have_text(sentence(of_age))


def test_many_files_are_shown_as_a_batch_answers_them_at_every_operating_point(
    page: Page, client: httpx.Client
) -> None:
    files = many_files()
    read(page, *files)
    points = client.get("/metadata").json()["operating_points"]
    assert [radio["value"] for radio in radios(page)] == list(points)
    for point in points:
        page.locator(f'#points input[value="{point}"]').check()
        batch = predict_batch(client, files, operating_point=point).json()
        assert rows(page) == expected_rows(batch["results"])
        labels = [
            result["prediction"]["label"] for result in batch["results"] if "error" not in result
        ]
        expect(page.locator("#summary")).to_have_text(
            f"{labels.count('PNEUMONIA')} PNEUMONIA · {labels.count('NORMAL')} NORMAL · "
            f"{batch['failed']} not judged"
        )
        shown = batch["results"][0]["prediction"]
        expect(page.locator("#label")).to_have_text(shown["label"])
        assert page.locator("#uncertain").is_visible() is shown["uncertain"]


def radios(page: Page) -> list[dict[str, Any]]:
    return page.locator("#points input[name=point]").evaluate_all(
        "(inputs) => inputs.map(({ value, checked }) => ({ value, checked }))"
    )


def test_the_bundles_default_operating_point_is_chosen_at_first(
    page: Page, client: httpx.Client
) -> None:
    read(page, ONE)
    default = client.get("/metadata").json()["default_operating_point"]
    assert [radio["value"] for radio in radios(page) if radio["checked"]] == [default]


def test_each_reading_of_the_list_can_be_looked_at(page: Page, client: httpx.Client) -> None:
    files = [*EXAMPLES.items(), ("noise.png", noise_png())]
    read(page, *files)
    results = predict_batch(client, files).json()["results"]
    for i, (name, _) in enumerate(files):
        page.locator("#readings button").nth(i).click()
        expect(page.locator("#readings [aria-current=true] .name")).to_have_text(name)
        expect(page.locator("#readings [aria-current]")).to_have_count(1)
        expect(page.locator("#picture")).to_have_attribute("aria-label", f"Radiograph {name}")
        if "error" in results[i]:
            expect(page.locator("#verdict")).to_be_hidden()
            expect(page.locator("#refusal-title")).to_have_text(results[i]["error"]["title"])
        else:
            expect(page.locator("#refusal")).to_be_hidden()
            expect(page.locator("#label")).to_have_text(results[i]["prediction"]["label"])


def test_the_list_can_be_ordered(page: Page, client: httpx.Client) -> None:
    files = [*EXAMPLES.items(), ("noise.png", noise_png())]
    read(page, *files)
    probability = {name: predict(client, data).json()["probability"] for name, data in files[:4]}
    names = [name for name, _ in files]
    page.locator("#order").select_option("probability")
    by_probability = sorted(probability, key=probability.__getitem__, reverse=True)
    assert [row["name"] for row in rows(page)] == [*by_probability, "noise.png"]
    page.locator("#order").select_option("state")
    assert [row["name"] for row in rows(page)] == ["noise.png", *names[:4]]
    page.locator("#order").select_option("added")
    assert [row["name"] for row in rows(page)] == names


def test_the_same_file_can_be_chosen_twice(page: Page) -> None:
    read(page, ONE)
    add(page, ONE)
    until_read(page, 2)
    first, second = rows(page)
    assert first == second


def test_files_dropped_anywhere_are_read(page: Page, client: httpx.Client) -> None:
    files = [*EXAMPLES.items(), ("text.png", b"This is no picture.")]
    transfer = data_transfer(page, files)
    page.dispatch_event("#answer", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#drop-here")).to_be_visible()
    page.dispatch_event("#answer", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop-here")).to_be_hidden()
    until_read(page, len(files))
    assert rows(page) == expected_rows(predict_batch(client, files).json()["results"])


def test_the_hint_to_drop_goes_when_the_files_leave_the_window(page: Page) -> None:
    page.dispatch_event("#answer", "dragover", {"dataTransfer": data_transfer(page, [ONE])})
    expect(page.locator("#drop-here")).to_be_visible()
    page.dispatch_event("#answer", "dragleave", {"relatedTarget": None})
    expect(page.locator("#drop-here")).to_be_hidden()


def test_a_pasted_picture_is_read(page: Page, client: httpx.Client) -> None:
    data_transfer(page, [ONE]).evaluate(
        """(clipboardData) => document.body.dispatchEvent(
            new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }))"""
    )
    until_read(page, 1)
    assert rows(page) == expected_rows(predict_batch(client, [ONE]).json()["results"])


def test_pasted_text_is_left_alone(page: Page) -> None:
    not_taken = page.evaluate(
        """() => {
            const clipboardData = new DataTransfer();
            clipboardData.setData("text/plain", "7");
            return document.body.dispatchEvent(
                new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
        }"""
    )
    assert not_taken
    assert rows(page) == []


def data_transfer(page: Page, files: list[File]) -> Any:
    """A handle to what the browser makes of files on their way: Playwright has none of its own."""
    given = [file | {"buffer": list(file["buffer"])} for file in payloads(files)]
    return page.evaluate_handle(
        """(files) => {
            const transfer = new DataTransfer();
            for (const { name, mimeType, buffer } of files) {
                transfer.items.add(new File([new Uint8Array(buffer)], name, { type: mimeType }));
            }
            return transfer;
        }""",
        given,
    )


def test_a_refusal_explains_itself_and_the_picture_can_be_read_all_the_same(
    page: Page, client: httpx.Client
) -> None:
    noise = noise_png()
    read(page, ("noise.png", noise))
    problem = predict(client, noise).json()
    facts = client.get("/metadata").json()["input_check"]
    expect(page.locator("#refusal-title")).to_have_text(problem["title"])
    expect(page.locator("#refusal-detail")).to_have_text(sentence(problem["detail"]))
    check = page.locator("#refusal-check").inner_text()
    assert f"{problem['input_check']['score']:.2f}" in check
    assert f"{facts['threshold']:.2f}" in check
    assert facts["rule"] in check
    assert problem["code"] in page.locator("#refusal-code").inner_text()
    until_shown(page)  # refused, the picture is looked at all the same

    page.locator("#read-anyway").click()
    expect(page.locator("#verdict")).to_be_visible()
    expect(page.locator("#refusal")).to_be_hidden()
    answer = predict(client, noise, input_check="warn").json()
    assert rows(page)[0]["words"] == answered_words(answer)
    of_age, not_a_chest = answer["warnings"]
    assert of_age == AGE_IS_NOT_KNOWN
    assert page.locator("#warnings li").all_inner_texts() == [sentence(not_a_chest)]


def test_a_file_that_cannot_be_read_cannot_be_read_all_the_same(page: Page) -> None:
    read(page, ("text.png", b"This is no picture."))
    expect(page.locator("#refusal-title")).to_have_text("Unsupported format")
    expect(page.locator("#refusal-check")).to_be_empty()
    for button in ("#read-anyway", "#try-again"):  # the same bytes get the same answer
        expect(page.locator(button)).to_be_hidden()


class Recorder:
    """Middleware that keeps what was sent: heads and bodies."""

    def __init__(self, app: ASGIApp, sent: list[bytes]) -> None:
        self.app, self.sent = app, sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = [scope["method"].encode(), scope["raw_path"], scope["query_string"]]
        self.sent.append(b" ".join([*head, *(b": ".join(pair) for pair in scope["headers"])]))

        async def recorded() -> Message:
            message = await receive()
            self.sent.append(message.get("body", b""))
            return message

        await self.app(scope, recorded, send)


@pytest.fixture
def sent() -> list[bytes]:
    """All that ``recorded`` was sent."""
    return []


@pytest.fixture
def recorded(predictor: Predictor, sent: list[bytes]) -> Iterator[httpx.Client]:
    """A service that takes small files only and remembers what it was sent."""
    app = create_app(Settings(max_file_bytes=MAX_FILE_BYTES), serving(predictor))
    app.add_middleware(Recorder, sent=sent)
    with served(app) as client:
        yield client


def test_a_file_that_is_too_large_is_refused_without_being_sent(
    visitor: Visitor, recorded: httpx.Client, sent: list[bytes]
) -> None:
    page = visitor.open(recorded)
    large = b"\0" * (MAX_FILE_BYTES + 1)
    read(page, ("large.png", large))
    assert rows(page)[0]["words"] == "not judged: too many bytes"
    expect(page.locator("#refusal-title")).to_have_text("Too many bytes")
    assert not any(part.startswith(b"POST") for part in sent)
    problem = predict(recorded, large).json()
    assert problem["title"] == "Too many bytes"  # as the service would have said


def test_a_refusal_for_size_names_the_limit(visitor: Visitor, recorded: httpx.Client) -> None:
    page = visitor.open(recorded)
    read(page, ("large.png", b"\0" * (MAX_FILE_BYTES + 1)))
    detail = page.locator("#refusal-detail").inner_text()
    assert "0 MiB" not in detail


def test_the_name_of_a_file_never_goes_to_the_service(
    visitor: Visitor, recorded: httpx.Client, sent: list[bytes]
) -> None:
    page = visitor.open(recorded)
    data = EXAMPLES["normal-1.jpeg"]
    read(page, ("roe_jane.jpeg", data), ("roe_jane.txt", b"no picture"))
    everything = b"\n".join(sent)
    assert data in everything
    assert b"roe_jane" not in everything
    page.reload()
    expect(page.locator("#readings button")).to_have_count(0)  # and nothing is kept here


def test_a_dropped_folder_brings_all_that_is_in_it(page: Page, tmp_path: Path) -> None:
    ward = tmp_path / "ward"
    for name in ("10.jpeg", "9.jpeg", "older/1.jpeg"):
        (ward / name).parent.mkdir(parents=True, exist_ok=True)
        (ward / name).write_bytes(EXAMPLES["normal-1.jpeg"])
    mouse = page.context.new_cdp_session(page)
    dragged = {"items": [], "files": [str(ward)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        mouse.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 400, "data": dragged})
    expect(page.locator("#drop-here")).to_be_visible()
    # A mouse moves on until it drops.
    for kind in ("dragOver", "drop"):
        mouse.send("Input.dispatchDragEvent", {"type": kind, "x": 700, "y": 400, "data": dragged})
    expect(page.locator("#drop-here")).to_be_hidden(timeout=30_000)
    until_read(page, 3)
    assert [row["name"] for row in rows(page)] == [
        "ward/9.jpeg",
        "ward/10.jpeg",
        "ward/older/1.jpeg",
    ]
