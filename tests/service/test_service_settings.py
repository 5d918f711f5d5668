"""Settings come from CHESTXRAY_* variables, and a wrong one is said in one line."""

import os
from pathlib import Path

import pytest

from chestxray.errors import ConfigError
from chestxray.service.settings import load_settings, usable_cores


def test_without_variables_the_service_listens_on_loopback_with_the_shipped_bundle() -> None:
    settings = load_settings()
    assert (settings.host, settings.port, settings.bundle) == ("127.0.0.1", 8000, ())
    assert settings.threads_per_worker == usable_cores() >= 1


def test_variables_are_read_when_settings_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHESTXRAY_PORT", "9000")
    monkeypatch.setenv("CHESTXRAY_BUNDLE", "/somewhere")
    monkeypatch.setenv("CHESTXRAY_HOST", "")
    settings = load_settings()
    assert (settings.port, settings.bundle) == (9000, ((None, Path("/somewhere")),))
    assert settings.host == "127.0.0.1"


def test_what_the_command_line_says_takes_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHESTXRAY_PORT", "9000")
    assert load_settings(port=7000).port == 7000
    assert load_settings(port=None).port == 9000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "70000"),
        ("THREADS", "0"),
        ("QUEUE_TIMEOUT_S", "-1"),
        ("LOG_LEVEL", "loud"),
        ("MAX_BODY_BTES", "10"),
        ("MAX_BUFFERED_BYTES", "1000"),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"CHESTXRAY_{name}", value)
    with pytest.raises(ConfigError) as caught:
        load_settings()
    assert str(caught.value).startswith(f"CHESTXRAY_{name}: ")
    assert "\n" not in str(caught.value)


def test_a_body_that_could_never_come_in_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHESTXRAY_MAX_BODY_BYTES", str(2**30))
    with pytest.raises(ConfigError, match=r"^CHESTXRAY_MAX_BUFFERED_BYTES: .*MAX_BODY_BYTES"):
        load_settings()


def test_a_wrong_argument_is_named_as_such() -> None:
    with pytest.raises(ConfigError, match=r"^port: "):
        load_settings(port=-1)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("CHESTXRAY_"):
            monkeypatch.delenv(name)
