from pathlib import Path

import pytest

from chestxray.assessment import Registry, read_bundles
from factories.bundles import OTHER_FINDING, write_tiny_bundle


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two tiny bundles that ask for two findings."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        "first": write_tiny_bundle(folder / "first"),
        "second": write_tiny_bundle(folder / "second", seed=1, finding=OTHER_FINDING),
    }


@pytest.fixture(scope="session")
def registry(folders: dict[str, Path]) -> Registry:
    return Registry.of(read_bundles(folders.items()))
