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


@pytest.fixture(scope="session")
def shared_inputs() -> Path:
    """``../shared/cases/inputs``; a test that asks for it is skipped where it is absent."""
    inputs = SHARED / "cases" / "inputs"
    if not inputs.is_dir():
        pytest.skip("needs ../shared/cases/inputs, which is not part of the repository")
    return inputs


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI has installed everything that tests need: there a skip is a test that did not run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and SHARED.is_dir() and reporter.stats.get("skipped"):
        reporter.write_line("in CI no test may be skipped", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
