"""The reading page's files: what is served, to whom, with which headers, and what is not in them.

Does not: run the page; ``web/`` does, in a real browser.
"""

import re
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image

import chestxray
from chestxray.inference import BUNDLED, Predictor, read_bundle
from chestxray.inference.rendering import LEVELS, render_colour_bar
from chestxray.service.app import create_app
from chestxray.service.http.keys import hash_of
from chestxray.service.settings import Settings
from factories.servers import served, serving

PACKAGE = Path(chestxray.__file__).parent
WEB = sorted(path for path in (PACKAGE / "service" / "page" / "web").iterdir() if path.is_file())
ROUTES = PACKAGE / "service" / "page" / "routes.py"
EXAMPLES = sorted((PACKAGE / "examples").glob("*.jpeg"))
INDEX = (PACKAGE / "service" / "page" / "web" / "index.html").read_text(encoding="utf-8")
SCRIPTS = {path.name: path.read_text(encoding="utf-8") for path in WEB if path.suffix == ".js"}

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".jpeg": "image/jpeg",
}

FILES = {
    "/": "text/html; charset=utf-8",
    **{f"/page/{path.name}": TYPES[path.suffix] for path in WEB},
    **{f"/page/examples/{path.name}": TYPES[path.suffix] for path in EXAMPLES},
}

NOT_THERE = [
    "/page/",
    "/page/none.js",
    "/page/..",
    "/page/../routes.py",
    "/page/..%2froutes.py",
    "/page/..%2Froutes.py",
    "/page/%2e%2e%2froutes.py",
    "/page/..%5croutes.py",
    "/page/%2fetc%2fpasswd",
    "/page//etc/passwd",
    "/page/main.js%00",
    "/page/main.js%00.html",
    "/page/%00",
    "/page/main.js/",
    "/page/.",
    "/page/examples",
    "/page/examples/",
    "/page/examples/..%2f__init__.py",
    "/page/examples/..%2fservice%2fpage%2fweb%2fmain.js",
    "/page/examples/none.jpeg",
    "/page/examples/%00",
    "/page/" + "a" * 300,
    "/page/" + "a" * 20_000 + ".js",
    "/page/examples/" + "a" * 5000,
    "/page/" + "..%2f" * 50 + "etc%2fpasswd",
    "/page/%ff%fe.js",
    "/page/caf%C3%A9.js",
    "/page/__pycache__",
    "/index.html",
]


@pytest.fixture(scope="module")
def guarded(settings: Settings, predictor: Predictor) -> Iterator[httpx.Client]:
    keys = {"ward": hash_of("key-of-the-ward")}
    with served(
        create_app(settings.model_copy(update={"api_keys": keys}), serving(predictor))
    ) as client:
        yield client


class Page(HTMLParser):
    """The elements of index.html: name and attributes, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(INDEX)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def values(self, attribute: str) -> list[str]:
        return [of[attribute] or "" for _, of in self.elements if attribute in of]


@pytest.fixture(scope="module")
def parsed() -> Page:
    return Page()


# --- what is served


@pytest.mark.parametrize("path", FILES)
def test_each_part_is_the_file_with_its_type_and_a_strict_policy(
    client: httpx.Client, path: str
) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.headers["content-type"] == FILES[path]
    name = path.removeprefix("/page/") if path != "/" else "index.html"
    folder = PACKAGE if name.startswith("examples/") else PACKAGE / "service" / "page" / "web"
    assert response.content == (folder / name).read_bytes()
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["cross-origin-opener-policy"] == "same-origin"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert_strict(response.headers["content-security-policy"])


def assert_strict(policy: str) -> None:
    """Nothing but the service's own files, and no text ever becomes code."""
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == "'self'"
    assert directives["style-src"] == "'self'"
    assert directives["connect-src"] == "'self'"
    assert directives["base-uri"] == directives["form-action"] == "'none'"
    assert directives["frame-ancestors"] == "'none'"
    assert directives["require-trusted-types-for"] == "'script'"
    sources = {source for value in directives.values() for source in value.split()}
    assert sources <= {"'none'", "'self'", "data:", "blob:", "'script'"}  # no host, nothing unsafe


@pytest.mark.parametrize("path", FILES)
def test_who_has_a_part_already_is_told_so(client: httpx.Client, path: str) -> None:
    etag = client.get(path).headers["etag"]
    response = client.get(path, headers={"If-None-Match": etag})
    assert (response.status_code, response.content) == (304, b"")
    assert response.headers["etag"] == etag
    assert_strict(response.headers["content-security-policy"])
    assert client.get(path, headers={"If-None-Match": '"another"'}).status_code == 200


def test_the_page_answers_head(client: httpx.Client) -> None:
    response = client.head("/")
    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) == len(client.get("/").content)


def test_the_colour_bar_is_drawn_as_the_heatmap_is(client: httpx.Client) -> None:
    response = client.get("/page/colour-bar.png")
    assert response.status_code == 200
    assert response.headers["content-type"] == "image/png"
    assert response.content == render_colour_bar()
    with Image.open(BytesIO(response.content)) as image:
        assert image.size == (1, LEVELS)
        alpha = [image.convert("RGBA").getpixel((0, y))[3] for y in range(LEVELS)]
    assert alpha == sorted(alpha, reverse=True)  # the strongest above
    assert alpha[-1] == 0


def test_the_page_is_told_what_it_must_know_before_it_asks(
    client: httpx.Client, guarded: httpx.Client, settings: Settings
) -> None:
    for of, demands_key in [(client, False), (guarded, True)]:
        response = of.get("/page/settings.json")
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {
            "demands_key": demands_key,
            "max_file_bytes": settings.max_file_bytes,
            "examples": [path.name for path in EXAMPLES],
        }


@pytest.mark.parametrize("path", [*FILES, "/page/settings.json", "/page/colour-bar.png"])
def test_the_page_needs_no_key_where_the_answers_do(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path).status_code == 200
    assert guarded.get("/metadata").status_code == 401


@pytest.mark.parametrize("path", NOT_THERE, ids=lambda path: path[:50])
def test_what_is_no_part_of_the_page_is_not_found(client: httpx.Client, path: str) -> None:
    # As it is, not tidied up by the client.
    response = client.get("/", extensions={"target": path.encode()})
    assert response.status_code in {400, 404}, response.text[:200]
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] in {"not_found", "malformed_request"}
    assert client.get("/livez").status_code == 200


def test_the_page_is_only_read(client: httpx.Client) -> None:
    for path in ("/", "/page/main.js", "/page/settings.json", "/page/examples/normal-1.jpeg"):
        for method in ("POST", "PUT", "DELETE"):
            response = client.request(method, path)
            assert (response.status_code, response.json()["code"]) == (405, "method_not_allowed")


def test_the_page_is_no_part_of_the_described_interface(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    assert not [path for path in paths if path == "/" or path.startswith("/page")]


# --- what is in the files


@pytest.mark.parametrize("path", [*WEB, ROUTES], ids=lambda path: path.name)
def test_no_source_knows_a_finding(path: Path) -> None:
    """The words for it are the bundle's: another bundle has others."""
    finding = read_bundle(BUNDLED).manifest.finding
    text = path.read_text(encoding="utf-8")
    assert finding.code.meaning.casefold() not in text.casefold()
    for label in finding.labels:
        assert re.findall(rf"\b{label}\b", text, re.IGNORECASE) == []


def test_every_id_that_a_module_asks_for_is_in_the_page_once(parsed: Page) -> None:
    ids = Counter(parsed.values("id"))
    assert {name: n for name, n in ids.items() if n > 1} == {}
    asked = {found for text in SCRIPTS.values() for found in re.findall(r'byId\("([^"]+)"\)', text)}
    assert asked
    assert asked - set(ids) == set()


@pytest.mark.parametrize("attribute", ["for", "aria-labelledby", "aria-describedby", "data-close"])
def test_what_the_page_refers_to_within_itself_is_there(parsed: Page, attribute: str) -> None:
    named = {name for value in parsed.values(attribute) for name in value.split()}
    assert named - set(parsed.values("id")) == set()


def test_every_file_is_used_and_every_file_used_is_there(
    parsed: Page, client: httpx.Client
) -> None:
    linked = [*parsed.values("src"), *parsed.values("href")]
    used = {of.removeprefix("page/") for of in linked if of.startswith("page/")}
    for text in SCRIPTS.values():
        used |= set(re.findall(r'from "\./([^"]+)"', text))
    names = {path.name for path in WEB} - {"index.html"}
    assert names - used == set()
    for name in used:
        assert client.get(f"/page/{name}").status_code == 200
    for address in linked:
        assert not address.startswith("/")  # behind a proxy the page may lie deeper


@pytest.mark.parametrize("path", WEB, ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?|wss?|ftp)://|[\"'(]//", text, re.IGNORECASE) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_no_module_makes_markup_or_code_of_text(name: str) -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser"
        r"|setHTML|\beval\b|new Function|\bFunction\(|javascript:|localStorage|document\.cookie"
        r"|indexedDB|sendBeacon|WebSocket|EventSource|serviceWorker"
    )
    assert re.findall(forbidden, SCRIPTS[name]) == []


def test_the_page_has_no_script_and_no_style_of_its_own(parsed: Page) -> None:
    for tag, attributes in parsed.elements:
        assert tag != "style"
        assert tag != "script" or "src" in attributes
        assert "style" not in attributes
        assert [name for name in attributes if name.startswith("on")] == []
    for text in SCRIPTS.values():
        assert re.findall(r"setAttribute\(\s*[\"'](?:style|on\w+)[\"']", text) == []


def test_the_page_has_a_title_a_language_and_says_that_it_is_no_medical_device(
    parsed: Page,
) -> None:
    assert ("html", {"lang": "en"}) in parsed.elements
    assert "<title>" in INDEX
    assert "Not a medical device" in INDEX
