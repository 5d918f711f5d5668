"""What the tests of archives share: tiny bundles, and files that end in every way a file can."""

from pathlib import Path

import numpy as np
import pytest

from chestxray.archive.scoring import Job
from chestxray.assessment import Choices
from chestxray.imaging.synthetic import synthetic_radiograph
from chestxray.inference import Bundle, read_bundle
from factories import dicom_files, images
from factories.bundles import OTHER_FINDING, POPULATION, write_tiny_bundle
from factories.requests import radiograph_png


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Bundle:
    return read_bundle(tiny_folder)


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of another finding, which knows adults alone."""
    folder = tmp_path_factory.mktemp("other") / "bundle"
    population = POPULATION | {"age_years": [18, 90]}
    return write_tiny_bundle(folder, seed=1, finding=OTHER_FINDING, population=population)


@pytest.fixture(scope="session")
def other(other_folder: Path) -> Bundle:
    return read_bundle(other_folder)


@pytest.fixture(scope="session")
def job(tiny: Bundle) -> Job:
    return Job({"tiny": tiny}, Choices())


@pytest.fixture(scope="session")
def two(tiny: Bundle, other: Bundle) -> Job:
    """A job with two bundles, not in the order of their names."""
    return Job({"tiny": tiny, "other": other}, Choices())


@pytest.fixture(scope="session")
def mixed() -> dict[str, bytes]:
    """Files by name: JPEG, PNG and DICOM that are judged, and some that are not."""
    phantom = np.uint8(np.round(synthetic_radiograph(3, 96) * 255))
    return {
        **{f"{seed}.png": radiograph_png(seed) for seed in range(4)},
        "a.jpeg": images.jpeg(phantom),
        "no suffix": images.jpeg(phantom, quality=60),
        "b.dcm": dicom_files.dicom(dicom_files.phantom(12, 96)),
        "lateral.dcm": dicom_files.dicom(dicom_files.phantom(12, 96), ViewPosition="LL"),
        "noise.png": images.png(
            np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8)
        ),
        "small.png": radiograph_png(0, 16),
        "notes.txt": b"not a picture",
        "empty.png": b"",
        "cut.png": radiograph_png(1)[:500],
        "animated.gif": images.gif(),
    }
