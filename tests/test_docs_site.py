"""The site of the documents: built with warnings as errors, whole, and without another host."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from typer.main import get_command

from chestxray import cli, errors, inference
from chestxray.service.app import create_app
from chestxray.service.http.problems import PROBLEMS
from chestxray.service.settings import Settings
from factories.browser import CHROMIUM, chromium

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
pytestmark = pytest.mark.timeout(300)


def build(docs: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build as `make docs` does."""
    return subprocess.run(
        [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", docs, site],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    built = build(DOCS, folder)
    assert built.returncode == 0, built.stderr
    assert built.stderr == ""
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[str, str]:
    """The site's pages by path, less what Sphinx makes by itself."""
    made = {"genindex.html", "py-modindex.html", "search.html"}
    found = {path.relative_to(site).as_posix(): path for path in site.rglob("*.html")}
    return {name: p.read_text(encoding="utf-8") for name, p in found.items() if name not in made}


WHOLE = """# Networks

[A page](index.md), [a heading](networks.md#networks), [a file](../deploy/nginx.conf),
[a folder](../deploy), [a document beside them](../LICENSE).
"""


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """Two documents, to be broken, in a copy of what a build needs; all would take too long."""
    root = tmp_path / "copy"
    shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("*.md"))
    shutil.copy(REPOSITORY / "LICENSE", root)
    (root / "deploy").symlink_to(REPOSITORY / "deploy")
    (root / "docs" / "index.md").write_text("# Index\n\n- [Networks](networks.md)\n", "utf-8")
    (root / "docs" / "networks.md").write_text(WHOLE, encoding="utf-8")
    return root / "docs"


def test_what_is_not_broken_builds(copied: Path, tmp_path: Path) -> None:
    built = build(copied, tmp_path / "site")
    assert (built.returncode, built.stderr) == (0, "")


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("[a page](nowhere.md)", "nowhere.md"),
        ("[a heading](networks.md#nowhere)", "nowhere"),
        ("[a file](../deploy/nowhere.conf)", "nowhere.conf"),
        ("![a picture](images/nowhere.png)", "nowhere.png"),
        ("```{eval-rst}\n:class:`chestxray.nowhere.Nothing`\n```", "Nothing"),
        ("```{eval-rst}\n.. automodule:: chestxray.nowhere\n```", "nowhere"),
    ],
)
def test_a_broken_page_fails_the_build(
    copied: Path, tmp_path: Path, broken: str, said: str
) -> None:
    (copied / "networks.md").write_text(f"{WHOLE}\n{broken}\n", encoding="utf-8")
    built = build(copied, tmp_path / "site")
    assert built.returncode != 0
    assert said in built.stderr


def test_a_page_in_no_list_fails_the_build(copied: Path, tmp_path: Path) -> None:
    (copied / "lost.md").write_text("# Lost\n", encoding="utf-8")
    built = build(copied, tmp_path / "site")
    assert built.returncode != 0
    assert "lost.md" in built.stderr


def test_every_document_is_a_page(pages: dict[str, str]) -> None:
    documents = {p.relative_to(DOCS).with_suffix(".html").as_posix() for p in DOCS.rglob("*.md")}
    assert documents == set(pages)


@pytest.mark.parametrize("name", ["MODEL_CARD.md", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_documents_beside_docs_are_pages_too(pages: dict[str, str], name: str) -> None:
    page = pages[name.lower().replace("_", "-").replace(".md", ".html")]
    headings = re.findall(r"^#+ (.+)$", (REPOSITORY / name).read_text("utf-8"), re.MULTILINE)
    assert headings
    shown = [re.sub(r"<[^>]+>", "", h) for h in re.findall(r"<h\d>(.*?)<a ", page, re.DOTALL)]
    assert shown == [heading.replace("`", "").replace("'", "’") for heading in headings]


def test_every_public_name_of_two_rooms_is_in_the_reference(pages: dict[str, str]) -> None:
    for name in {*inference.__all__} - {"BUNDLED", "Label"}:  # a folder, and a type by its values
        assert f'id="chestxray.inference.{name}"' in pages["reference/python-inference.html"]
    for error in PROBLEMS:
        assert f'id="{errors.__name__}.{error.__name__}"' in pages["reference/python-errors.html"]


def test_every_path_parameter_model_and_code_is_in_the_http_reference(
    pages: dict[str, str],
) -> None:
    page = pages["reference/http.html"]
    text = re.sub(r"<[^>]+>", "", page)
    document = create_app(Settings()).openapi()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}" in text
            for parameter in operation.get("parameters", []):
                assert f'<span class="pre">{parameter["name"]}</span>' in page
    for model in document["components"]["schemas"]:
        assert f'<section id="{model.lower()}">' in page
    for error, (status, _) in PROBLEMS.items():
        if status < 500 and not error.__subclasses__():
            assert f'<span class="pre">{error.code}</span>' in page


def test_every_command_and_option_is_in_the_reference(pages: dict[str, str]) -> None:
    text = re.sub(r"<[^>]+>", "", pages["reference/command-line.html"])
    sections = dict(
        re.findall(r"^(chestxray[ \w]*)¶$(.*?)(?=^chestxray[ \w]*¶$|\Z)", text, re.M | re.S)
    )
    for name, command in commands(get_command(cli.app), "chestxray"):
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else []:
                assert option in sections[name], (name, option)
    assert {"chestxray train", "chestxray pacs run"} <= set(sections)


def test_the_table_of_exit_codes_is_the_codes() -> None:
    text = (DOCS / "reference" / "command-line.md").read_text(encoding="utf-8")
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE)}
    assert listed == {0} | {code for name, code in vars(cli).items() if name.startswith("EXIT_")}


def commands(command: object, name: str) -> Iterator[tuple[str, object]]:
    yield name, command
    for inner in getattr(command, "commands", {}).values():
        yield from commands(inner, f"{name} {inner.name}")


class Loaded(HTMLParser):
    """Collects what a page loads: not what it only links to."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            loads = name in {"src", "srcset", "poster", "data"} or (name, tag) == ("href", "link")
            if value and loads:
                self.addresses.append(value)
            elif value and name == "style":
                self.addresses += re.findall(r"url\(([^)]*)\)", value)


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    loaded = Loaded()
    for page in site.rglob("*.html"):
        loaded.feed(page.read_text(encoding="utf-8"))
    for style in site.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        loaded.addresses += re.findall(r"(?:url\(|@import\s*)[\"']?([^\"')]+)", text)
    assert len(loaded.addresses) > 100
    assert [at for at in loaded.addresses if re.match(r"(?!data:)[a-z]+:|//", at)] == []


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    """The address of the site, served as files are."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=site)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_asks_no_other_host_and_finds_what_is_searched_for(served: str) -> None:
    asked: list[str] = []
    troubles: list[str] = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("requestfailed", lambda request: troubles.append(request.url))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        for name in ("index", "tutorial", "reference/http", "reference/python-inference"):
            page.goto(f"{served}/{name}.html", wait_until="networkidle")
        page.goto(f"{served}/search.html?q=calibrate")
        page.locator("#search-results li").first.wait_for()
        page.wait_for_load_state("networkidle")
    assert [url for url in asked if not url.startswith((served, "data:"))] == []
    assert any(".css" in url for url in asked)
    assert troubles == []


def test_no_page_shows_markup(pages: dict[str, str]) -> None:
    marks = re.compile(r"```|~~~|:(?:func|class|meth|mod):|\]\(|<!-- site|class=\"problematic")
    bare = {name: re.sub(r"<pre>.*?</pre>", "", text, flags=re.S) for name, text in pages.items()}
    assert {name: found for name, text in bare.items() if (found := marks.findall(text))} == {}


def test_no_page_has_a_path_of_the_machine_that_built_it(pages: dict[str, str]) -> None:
    assert [name for name, text in pages.items() if str(REPOSITORY) in text] == []


def test_links_between_pages_and_to_files_lead_somewhere(site: Path, pages: dict[str, str]) -> None:
    broken = []
    for name, text in pages.items():
        for target in re.findall(r'<a [^>]*href="([^"]*)"', text):
            if not re.match(r"[a-z]+:", target):
                path, _, anchor = target.partition("#")
                file = (site / name).parent / path if path else site / name
                if not file.is_file() or (
                    anchor and f'id="{anchor}"' not in file.read_text(encoding="utf-8")
                ):
                    broken.append((name, target))
    assert broken == []
