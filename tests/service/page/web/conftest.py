"""Chromium, and the real service with the bundle that ships, for the tests of the reading page."""

from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page

from chestxray.assessment import Registry
from chestxray.inference import BUNDLED, Predictor
from chestxray.inference.bundle import MODEL_FILE, write_bundle
from chestxray.service.api.served import Served
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.browser import CHROMIUM, Visitor, chromium
from factories.bundles import (
    OTHER_FINDING,
    POPULATION,
    tiny_manifest,
    tiny_model,
    write_tiny_bundle,
)
from factories.servers import served, serving


@pytest.fixture(scope="module", name="chromium")
def _chromium() -> Iterator[Browser]:
    """A browser for one module, not for the session: until it ends, Playwright's event loop holds
    the thread, and other modules' tests have event loops of their own."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium, which is not installed")
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def predictor() -> Predictor:
    """Of the bundle that ships."""
    return Predictor.load(BUNDLED)


@pytest.fixture(scope="session")
def client(predictor: Predictor) -> Iterator[httpx.Client]:
    """The service as it starts without any setting."""
    with served(create_app(Settings(), serving(predictor))) as client:
        yield client


@pytest.fixture(scope="session")
def two_models(
    predictor: Predictor, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """The bundle that ships, and ``effusion``: another finding, from 6 years on, any picture."""
    check = tiny_manifest(tiny_model()).input_check.model_dump()
    folder = write_tiny_bundle(
        tmp_path_factory.mktemp("other"),
        validated=True,
        finding=OTHER_FINDING,
        population=POPULATION | {"age_years": [6, 90]},
        input_check=check | {"distance_at_threshold": 1e6},
    )
    registry = Registry({predictor.manifest.name: predictor, "effusion": Predictor.load(folder)})
    with served(create_app(Settings(), Served(registry))) as client:
        yield client


@pytest.fixture(scope="session")
def successor(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """The bundle that ships with another calibration, other thresholds and other labels."""
    manifest = predictor.manifest
    finding = manifest.finding.model_copy(update={"negative": "CLEAR", "positive": "OPACITY"})
    calibration = manifest.calibration.model_copy(update={"bias": manifest.calibration.bias - 2})
    points = {
        name: point.model_copy(update={"threshold": point.threshold / 2})
        for name, point in manifest.operating_points.items()
    }
    changed = {"finding": finding, "calibration": calibration, "operating_points": points}
    folder = tmp_path_factory.mktemp("successor")
    write_bundle(folder, manifest.model_copy(update=changed), (BUNDLED / MODEL_FILE).read_bytes())
    return Predictor.load(folder)


@pytest.fixture
def visitor(chromium: Browser) -> Iterator[Visitor]:
    """After the test it asserts that no page warned, failed or asked another host."""
    visitor = Visitor(chromium)
    yield visitor
    visitor.leave()


@pytest.fixture
def page(visitor: Visitor, client: httpx.Client) -> Page:
    """The reading page of ``client``, seen for the first time."""
    return visitor.open(client)
