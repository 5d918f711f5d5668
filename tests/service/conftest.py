"""What the tests of the service share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.bundles import write_tiny_bundle
from factories.servers import served, wait_until


@pytest.fixture(name="wait_until")
def _wait_until() -> Callable[..., None]:
    return wait_until


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor.load(tiny_bundle)


@pytest.fixture(scope="session")
def settings(tiny_bundle: Path) -> Settings:
    """Limits small enough to reach them quickly."""
    return Settings(
        bundle=tiny_bundle,
        threads=2,
        max_file_bytes=300_000,
        max_body_bytes=1_000_000,
        max_pixels=10_000_000,
        max_files=16,
        queue_size=200,
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with served(create_app(settings)) as client:
        yield client
