"""The pictures of the reading page are of the page as it is, and can be taken anew."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.browser import CHROMIUM, chromium
from factories.servers import served

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def screenshots() -> ModuleType:
    """docs/screenshots.py, which is no part of the package."""
    file = REPOSITORY / "docs" / "screenshots.py"
    spec = importlib.util.spec_from_file_location("screenshots", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["screenshots"] = module  # its dataclass looks itself up there
    spec.loader.exec_module(module)
    return module


def size_of(file: Path) -> tuple[int, int]:
    with Image.open(file) as picture:
        return picture.size


def test_the_committed_pictures_are_of_the_page_as_it_is(screenshots: ModuleType) -> None:
    assert not screenshots.is_stale(), f"run {screenshots.COMMAND}"
    taken = {file.stem for file in screenshots.OUT.glob("page-*.png")}
    assert taken == set(screenshots.SHOTS)


def test_pictures_are_stale_once_the_page_is_another(
    screenshots: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert screenshots.is_stale(tmp_path)  # there are none
    screenshots.write_facts(tmp_path, screenshots.sources_sha256(), "1.0")
    assert not screenshots.is_stale(tmp_path)

    web = tmp_path / "web"
    web.mkdir()
    for file in screenshots.WEB.iterdir():
        (web / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(screenshots, "WEB", web)
    assert not screenshots.is_stale(tmp_path)
    (web / "page.css").write_bytes((web / "page.css").read_bytes() + b"\n")
    assert screenshots.is_stale(tmp_path)


def test_a_picture_is_as_large_as_its_screen(screenshots: ModuleType, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    sizes = {"page-phone": (780, 1688), "page-report": screenshots.A4_PX}
    with served(create_app(Settings())) as client, chromium() as browser:
        screenshots.take(str(client.base_url), browser, sizes, tmp_path)
    assert {file.stem: size_of(file) for file in tmp_path.iterdir()} == sizes


def test_a_smaller_picture_looks_the_same(screenshots: ModuleType) -> None:
    ramp = Image.linear_gradient("L").convert("RGB")
    small = screenshots.small(ramp)
    assert len(small.getcolors()) == 52
    assert np.abs(np.asarray(small, int) - np.asarray(ramp, int)).max() == 2
