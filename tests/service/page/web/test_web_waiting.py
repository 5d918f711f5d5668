"""Keys, a full service, a service that is gone, and readers who change their minds."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import httpx
import pytest
from playwright.sync_api import Page, Route, expect

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.http.admission import Admission
from chestxray.service.http.keys import hash_of
from chestxray.service.settings import Settings
from factories.browser import (
    EXAMPLES,
    File,
    Visitor,
    add,
    read_example,
    rows,
    until_read,
)
from factories.raw_http import FORM_HEAD, connected, post
from factories.servers import served, serving, wait_until

KEY = "key-of-the-ward"
FILES = list(EXAMPLES.items())
MEMORY_BYTES = 400_000
AT_A_TIME = 4
REFUSED_KEY = "does not know this key"


# --- keys


@pytest.fixture(scope="session")
def guarded(predictor: Predictor) -> Iterator[httpx.Client]:
    """A service that answers who has the key."""
    with served(
        create_app(Settings(api_keys={"ward": hash_of(KEY)}), serving(predictor))
    ) as client:
        yield client


def enter(page: Page, key: str) -> None:
    page.locator("#key").fill(key)
    page.keyboard.press("Enter")


def kept(page: Page) -> list[str]:
    """What the tab's own storage holds; asserts that no other keeps anything."""
    state = page.context.storage_state()
    assert state == {"cookies": [], "origins": []}
    return page.evaluate("() => Object.values(sessionStorage)")


def test_a_key_is_asked_for_before_anything_is_refused(
    visitor: Visitor, guarded: httpx.Client
) -> None:
    page = visitor.open(guarded)
    expect(page.locator("#key-prompt")).to_be_visible()
    expect(page.locator("#key")).to_be_focused()
    expect(page.locator("#key-error")).to_be_empty()
    expect(page.locator("#wait")).to_contain_text("API key")
    enter(page, KEY)
    expect(page.locator("#key-prompt")).to_be_hidden()
    expect(page.locator("#wait")).to_be_empty()
    read_example(page)
    expect(page.locator("#label")).to_have_text("PNEUMONIA")


def test_a_wrong_key_is_told_and_another_may_be_tried(
    visitor: Visitor, guarded: httpx.Client
) -> None:
    visitor.expects("401")
    page = visitor.open(guarded)
    enter(page, "key-of-the-war")
    expect(page.locator("#key-error")).to_contain_text(REFUSED_KEY)
    expect(page.locator("#key-prompt")).to_be_visible()
    assert kept(page) == []
    enter(page, KEY)
    expect(page.locator("#key-prompt")).to_be_hidden()
    assert kept(page) == [KEY]


def test_the_prompt_can_be_left_and_come_back_to(visitor: Visitor, guarded: httpx.Client) -> None:
    page = visitor.open(guarded)
    expect(page.locator("#key-prompt")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#key-prompt")).to_be_hidden()
    add(page, *FILES)
    expect(page.locator("#readings button")).to_have_count(len(FILES))
    expect(page.locator("#wait")).to_contain_text("API key")
    page.locator("#api-key").click()
    enter(page, KEY)
    until_read(page, len(FILES))  # what came before the key is read with it


def test_a_key_is_the_tabs_alone_and_outlives_a_reload(
    visitor: Visitor, guarded: httpx.Client
) -> None:
    visitor.allows("net::ERR_ABORTED")  # what the first look had not finished
    page = visitor.open(guarded)
    enter(page, KEY)
    expect(page.locator("#key-prompt")).to_be_hidden()
    assert kept(page) == [KEY]
    assert KEY not in page.content()
    page.reload()
    expect(page.locator("#open-model-card")).to_be_enabled()
    expect(page.locator("#key-prompt")).to_be_hidden()
    for other in (visitor.open(guarded), page.context.new_page()):
        other.goto(str(guarded.base_url))
        expect(other.locator("#key-prompt")).to_be_visible()
        assert kept(other) == []


def test_a_key_can_be_forgotten_and_with_it_what_it_showed(
    visitor: Visitor, guarded: httpx.Client
) -> None:
    page = visitor.open(guarded)
    enter(page, KEY)
    read_example(page)
    expect(page.locator("#api-key")).to_have_text("Forget API key")
    page.locator("#api-key").click()
    expect(page.locator("#key-prompt")).to_be_visible()
    assert kept(page) == []
    assert rows(page) == []


def test_a_key_that_no_longer_opens_is_asked_for_again(
    visitor: Visitor, guarded: httpx.Client
) -> None:
    visitor.expects("401")
    page = visitor.open(guarded)
    enter(page, KEY)
    expect(page.locator("#key-prompt")).to_be_hidden()
    page.evaluate("() => sessionStorage.setItem(Object.keys(sessionStorage)[0], 'withdrawn')")
    add(page, *FILES)
    expect(page.locator("#key-prompt")).to_be_visible()
    expect(page.locator("#key-error")).to_contain_text(REFUSED_KEY)
    enter(page, KEY)
    until_read(page, len(FILES))
    assert {row["state"] for row in rows(page)} == {"answered"}


def test_where_no_key_is_demanded_none_is_asked_for(page: Page) -> None:
    expect(page.locator("#open-model-card")).to_be_enabled()
    expect(page.locator("#key-prompt")).to_be_hidden()
    expect(page.locator("#api-key")).to_be_hidden()


# --- a full service


class Small(NamedTuple):
    """A service whose memory for bodies one sender can take."""

    client: httpx.Client
    admission: Admission


@pytest.fixture(scope="session")
def small(predictor: Predictor) -> Iterator[Small]:
    settings = Settings(max_body_bytes=MEMORY_BYTES, max_buffered_bytes=MEMORY_BYTES)
    app = create_app(settings, serving(predictor))
    with served(app) as client:
        yield Small(client, app.state.service.admission)


@contextmanager
def filled(small: Small) -> Iterator[None]:
    """Somebody else's upload, nearly there, leaves less memory than any example needs."""
    nearly = MEMORY_BYTES - 3000
    with connected(small.client) as sender:
        sender.sendall(post(MEMORY_BYTES) + FORM_HEAD + bytes(nearly))
        wait_until(lambda: small.admission.buffered_bytes >= nearly)
        yield
    wait_until(lambda: small.admission.buffered_bytes == 0)


@contextmanager
def put_off(visitor: Visitor, small: Small) -> Iterator[Page]:
    """A page whose files wait, as long as the service is full."""
    visitor.expects("429")
    visitor.allows("net::ERR_ABORTED")  # what is under way when the reader stops
    page = visitor.open(small.client)
    with filled(small):
        add(page, *FILES)
        expect(page.locator("#wait")).to_contain_text("The service is busy.")
        yield page


def test_while_the_service_is_full_its_words_are_shown_and_then_every_file_is_answered(
    visitor: Visitor, small: Small
) -> None:
    visitor.expects("429")
    page = visitor.open(small.client)
    with filled(small):
        add(page, *FILES)
        expect(page.locator("#wait")).to_have_text(r"The service is busy. Next try in 1 s.")
        expect(page.locator("#progress-text")).to_have_text(f"0 of {len(FILES)}")
        assert {row["state"] for row in rows(page)} <= {"waiting", "reading"}
    until_read(page, len(FILES))
    assert {row["state"] for row in rows(page)} == {"answered"}
    expect(page.locator("#wait")).to_be_empty()
    expect(page.locator("#progress-area")).to_be_hidden()


def test_the_time_to_come_back_is_heeded(page: Page, visitor: Visitor) -> None:
    visitor.expects("429")
    asked: list[str] = []

    def busy_once(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            route.fulfill(status=429, headers={"Retry-After": "2"}, body="{}")
        else:
            route.continue_()

    page.route("**/predict_batch*", busy_once)
    add(page, FILES[0])
    expect(page.locator("#wait")).to_contain_text("Next try in 2 s.")
    expect(page.locator("#wait")).to_contain_text("Next try in 1 s.")
    assert len(asked) == 1
    until_read(page, 1)
    assert len(asked) == 2


def test_a_page_that_comes_while_the_service_is_busy_goes_on_by_itself(
    visitor: Visitor, client: httpx.Client
) -> None:
    visitor.expects("429")
    page = visitor.open(client)
    busy = [True]

    def not_now(route: Route) -> None:
        if busy[0]:
            route.fulfill(status=429, headers={"Retry-After": "1"}, body="{}")
        else:
            route.continue_()

    page.route("**/metadata", not_now)
    visitor.allows("net::ERR_ABORTED")  # what the first look had not finished
    page.reload()
    expect(page.locator("#wait")).to_contain_text("The service is busy.")
    add(page, *FILES)
    busy[0] = False
    until_read(page, len(FILES))
    expect(page.locator("#wait")).to_be_empty()
    expect(page.locator("#open-model-card")).to_be_enabled()


# --- a service that is gone


def test_a_service_that_goes_and_comes_back_answers_without_the_readers_doing(
    visitor: Visitor, predictor: Predictor
) -> None:
    visitor.expects("net::ERR_")
    with served(create_app(Settings(), serving(predictor))) as client:
        page = visitor.open(client)
        read_example(page)
        port = client.base_url.port
    add(page, *FILES)
    expect(page.locator("#wait")).to_contain_text("The service cannot be reached. Next try in")
    assert port is not None
    with served(create_app(Settings(), serving(predictor)), port):
        until_read(page, 1 + len(FILES))
        assert {row["state"] for row in rows(page)} == {"answered"}
        expect(page.locator("#wait")).to_be_empty()


def test_an_example_is_waited_for_as_an_answer_is(page: Page, visitor: Visitor) -> None:
    visitor.expects("net::ERR_")
    expect(page.locator("#open-model-card")).to_be_enabled()
    page.route("**/page/examples/*", lambda route: route.abort(), times=1)
    page.locator('[data-example="pneumonia-1.jpeg"]').click()
    expect(page.locator("#wait")).to_contain_text("The service cannot be reached. Next try in")
    until_read(page, 1)
    assert rows(page)[0]["name"] == "pneumonia-1.jpeg"
    expect(page.locator("#wait")).to_be_empty()


# --- readers who change their minds


@pytest.fixture
def held(page: Page) -> Page:
    """A page whose questions are held back until ``unroute_all``."""
    page.route("**/predict_batch*", lambda _: None)
    return page


def begin(page: Page, *files: File) -> None:
    """Add files and wait until as many are under way as go at a time."""
    add(page, *files)
    expect(page.locator("#readings [data-state=reading]")).to_have_count(AT_A_TIME)


def test_stop_sends_nothing_more_and_the_rest_can_be_read_later(
    visitor: Visitor, held: Page
) -> None:
    files = FILES + [(f"again {name}", data) for name, data in FILES]
    visitor.expects("net::ERR_ABORTED")
    begin(held, *files)
    expect(held.locator("#continue")).to_be_hidden()
    held.locator("#stop").click()
    expect(held.locator("#stop")).to_be_hidden()
    expect(held.locator("#continue")).to_be_visible()
    assert [row["words"] for row in rows(held)] == ["waiting"] * len(files)
    held.unroute_all()
    expect(held.locator("#progress-text")).to_have_text(f"0 of {len(files)}")
    held.locator("#continue").click()
    until_read(held, len(files))
    assert {row["state"] for row in rows(held)} == {"answered"}
    expect(held.locator("#progress-area")).to_be_hidden()


def test_clearing_the_list_while_it_is_read_leaves_nothing_behind(
    visitor: Visitor, held: Page
) -> None:
    visitor.expects("net::ERR_ABORTED")
    begin(held, *FILES, *FILES)
    held.locator("#clear").click()
    held.unroute_all()
    assert rows(held) == []
    expect(held.locator("#welcome")).to_be_visible()
    for selector in ("#verdict", "#refusal", "#progress-area", "#tools", "#picture"):
        expect(held.locator(selector)).to_be_hidden()
    for selector in ("#summary", "#wait", "#file-name"):
        expect(held.locator(selector)).to_be_empty()
    add(held, ("new.jpeg", EXAMPLES["normal-1.jpeg"]))
    until_read(held, 1)
    expect(held.locator("#summary")).to_have_text("0 PNEUMONIA · 1 NORMAL · 0 not judged")


def test_a_file_that_comes_right_after_the_list_was_cleared_is_read(
    visitor: Visitor, small: Small
) -> None:
    with put_off(visitor, small) as page:
        pass
    page.locator("#clear").click()
    expect(page.locator("#readings button")).to_have_count(0)
    add(page, FILES[0])
    until_read(page, 1)
    expect(page.locator("#wait")).to_be_empty()


def test_stop_ends_the_wait_for_a_full_service(visitor: Visitor, small: Small) -> None:
    with put_off(visitor, small) as page:
        page.locator("#stop").click()
        expect(page.locator("#continue")).to_be_visible()
        expect(page.locator("#wait")).to_be_empty()
    page.locator("#continue").click()
    until_read(page, len(FILES))


def test_a_failure_of_the_service_is_told_and_can_be_tried_again(
    page: Page, visitor: Visitor
) -> None:
    visitor.expects("500")
    page.route("**/predict_batch*", lambda route: route.fulfill(status=500, body="<h1>Oops</h1>"))
    add(page, FILES[0])
    until_read(page, 1)
    assert rows(page)[0]["state"] == "failed"
    expect(page.locator("#refusal-title")).not_to_be_empty()
    page.unroute_all()
    page.locator("#try-again").click()
    expect(page.locator("#verdict")).to_be_visible()
    assert rows(page)[0]["state"] == "answered"


def test_a_service_that_fails_at_first_is_asked_again(page: Page, visitor: Visitor) -> None:
    visitor.expects("500")
    visitor.allows("net::ERR_ABORTED")  # what the first look had not finished
    failing = [True]

    def fail_at_first(route: Route) -> None:
        if failing[0]:
            route.fulfill(status=500, json={"title": "Internal error"})
        else:
            route.continue_()

    page.route("**/metadata", fail_at_first)
    page.reload()
    expect(page.locator("#wait")).to_contain_text("The service fails: Internal error.")
    failing[0] = False
    read_example(page)
    expect(page.locator("#wait")).to_be_empty()


def test_an_answer_by_another_bundle_is_not_judged_by_this_ones_thresholds(page: Page) -> None:
    def by_another(route: Route) -> None:
        response = route.fetch()
        answer = response.json()
        answer["results"][0]["prediction"]["model"]["bundle_sha256"] = "0" * 64
        route.fulfill(response=response, json=answer)

    read_example(page)
    page.route("**/predict_batch*", by_another)
    add(page, FILES[0])
    until_read(page, 2)
    assert [row["state"] for row in rows(page)] == ["answered", "failed"]
    page.locator("#readings button").nth(1).click()
    expect(page.locator("#refusal-detail")).to_contain_text("another bundle")
    expect(page.locator("#verdict")).to_be_hidden()
    page.unroute_all()
    page.locator("#try-again").click()
    expect(page.locator("#verdict")).to_be_visible()
