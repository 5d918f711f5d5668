"""Where tests find the data that is not in the repository; and in CI nothing else may skip."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """``../shared/data``; a test that asks for it is skipped where it is absent."""
    data = SHARED / "data"
    if not data.is_dir():
        pytest.skip("needs ../shared/data, which is not part of the repository")
    return data


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """CI has installed everything that tests need: there a skip is a test that did not run."""
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("CI") and SHARED.is_dir() and skipped:
        pytest.exit(f"{len(skipped)} test(s) skipped in CI", returncode=1)
