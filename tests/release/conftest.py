"""A release, built and installed once for all tests of it."""

import sys
from pathlib import Path

import pytest

from factories.release import REPOSITORY, Release, build_release

sys.path.insert(0, str(REPOSITORY / "release"))


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return build_release(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def environment(release: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that holds the wheel and its pinned dependencies and nothing else."""
    from bill import install  # noqa: PLC0415 (it lies in a folder that is no package)

    folder = tmp_path_factory.mktemp("environment")
    install(release.wheel, folder)
    return folder
