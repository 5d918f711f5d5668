"""Builds the wheel and the sdist as a release does, outside the repository."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Release:
    """What ``python -m build`` makes: an sdist, and from that the wheel.

    ``wheel_of_repository`` is one that was built without the way over the sdist.
    """

    wheel: Path
    sdist: Path
    wheel_of_repository: Path


def build_release(folder: Path) -> Release:
    build("--outdir", folder)
    build("--wheel", "--outdir", folder / "of-repository")
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    (wheel_of_repository,) = (folder / "of-repository").iterdir()
    return Release(wheel, sdist, wheel_of_repository)


def build(*arguments: str | Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "build", *arguments, REPOSITORY],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def bare_variables() -> dict[str, str]:
    """The variables of a shell in which nobody has set anything for this repository."""
    ours = ("PYTHON", "PYTEST_", "CHESTXRAY_", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}
