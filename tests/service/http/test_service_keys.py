"""Keys: who may ask, and by what name."""

import re
from collections.abc import Iterator

import httpx
import pytest

from chestxray.errors import ConfigError
from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.http.keys import hash_of, make_key, name_of
from chestxray.service.settings import Settings, load_settings
from factories.requests import predict, radiograph_png
from factories.servers import served, serving

KEYS = {"ward": "key-of-the-ward", "pacs": "key-of-the-pacs"}
API_KEYS = ",".join(f"{name}:{hash_of(key)}" for name, key in KEYS.items())


@pytest.fixture(scope="module")
def guarded(settings: Settings, predictor: Predictor) -> Iterator[httpx.Client]:
    keys = {name: hash_of(key) for name, key in KEYS.items()}
    with served(
        create_app(settings.model_copy(update={"api_keys": keys}), serving(predictor))
    ) as client:
        yield client


def test_a_key_is_new_each_time_and_only_its_hash_is_needed_to_know_it() -> None:
    key = make_key()
    assert key != make_key()
    assert len(key) >= 43  # 256 bits
    assert name_of(key, {"a": hash_of(make_key()), "b": hash_of(key)}) == "b"
    assert name_of(key, {}) is None
    assert key not in hash_of(key)


@pytest.mark.parametrize(
    "header", [{"Authorization": "Bearer {}"}, {"authorization": "bearer {}"}, {"X-API-Key": "{}"}]
)
@pytest.mark.parametrize("key", KEYS.values())
def test_each_key_opens_every_route_in_either_header(
    guarded: httpx.Client, header: dict[str, str], key: str
) -> None:
    ((name, value),) = header.items()
    headers = {name: value.format(key)}
    files = {"file": ("a.png", radiograph_png())}
    assert guarded.post("/predict", files=files, headers=headers).status_code == 200
    for path in ("/metadata", "/metrics"):
        assert guarded.get(path, headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": ""},
        {"X-API-Key": "key-of-the-war"},
        {"X-API-Key": hash_of("key-of-the-ward")},
        {"X-API-Key": "kéy".encode()},
        {"Authorization": "Basic key-of-the-ward"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer key-of-the-wards"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", ["/predict", "/predict_batch", "/metadata", "/metrics"])
def test_without_one_of_the_keys_nothing_is_answered(
    guarded: httpx.Client, path: str, headers: dict[str, str | bytes]
) -> None:
    method = "POST" if path.startswith("/predict") else "GET"
    response = guarded.request(method, path, headers=headers)
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")
    assert response.headers["www-authenticate"] == "Bearer"


def test_health_and_documentation_are_open(guarded: httpx.Client) -> None:
    for path in ("/livez", "/readyz", "/docs", "/openapi.json"):
        assert guarded.get(path).status_code == 200


def test_the_name_of_a_key_is_in_the_metrics_and_the_key_is_not(guarded: httpx.Client) -> None:
    headers = {"X-API-Key": KEYS["ward"]}
    assert guarded.get("/metadata", headers=headers).status_code == 200
    metrics = guarded.get("/metrics", headers=headers).text
    assert re.search(r'requests_total\{key="ward",route="/metadata",status="200"\} [1-9]', metrics)
    assert KEYS["ward"] not in metrics


def test_openapi_asks_for_a_key_only_where_one_is_demanded(
    guarded: httpx.Client, client: httpx.Client
) -> None:
    operation = guarded.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert [list(scheme) for scheme in operation["security"]] == [["HTTPBearer"], ["APIKeyHeader"]]
    assert "401" in operation["responses"]
    operation = client.get("/openapi.json").json()["paths"]["/predict"]["post"]
    assert "security" not in operation
    assert "401" not in operation["responses"]


def test_without_keys_in_the_settings_anyone_on_this_machine_is_answered(
    client: httpx.Client,
) -> None:
    assert predict(client, radiograph_png()).status_code == 200


@pytest.mark.parametrize(
    ("host", "keys", "required", "demanded"),
    [
        ("127.0.0.1", None, None, False),
        ("::1", None, None, False),
        ("localhost", None, None, False),
        ("127.0.0.1", API_KEYS, None, True),
        ("0.0.0.0", API_KEYS, None, True),  # noqa: S104
        ("0.0.0.0", None, "false", False),  # noqa: S104
        ("127.0.0.1", API_KEYS, "false", False),
    ],
)
def test_a_key_is_demanded_where_others_can_reach_the_service_or_keys_are_set(
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    keys: str | None,
    required: str | None,
    demanded: bool,
) -> None:
    _set(monkeypatch, keys, required)
    assert load_settings(host=host).demands_key is demanded


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "ward.example"])  # noqa: S104
def test_the_service_does_not_start_within_reach_of_others_without_keys(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    _set(monkeypatch, None, None)
    with pytest.raises(ConfigError, match=f"^{host} can be reached from elsewhere: set"):
        load_settings(host=host)


def test_keys_that_are_demanded_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, None, "true")
    with pytest.raises(ConfigError, match="REQUIRE_API_KEY: there are no CHESTXRAY_API_KEYS"):
        load_settings()


def test_keys_within_reach_of_others_must_be_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    _set(monkeypatch, API_KEYS, "false")
    with pytest.raises(ConfigError, match="REQUIRE_API_KEY=false demands none"):
        load_settings(host="0.0.0.0")  # noqa: S104
    assert not load_settings(host="127.0.0.1").demands_key


@pytest.mark.parametrize(
    "keys", ["ward", "ward:abc", f"a b:{'0' * 64}", f"{API_KEYS},{API_KEYS}", f"{API_KEYS},"]
)
def test_keys_that_are_not_names_and_hashes_are_refused_without_being_quoted(
    monkeypatch: pytest.MonkeyPatch, keys: str
) -> None:
    _set(monkeypatch, keys, None)
    with pytest.raises(ConfigError, match=r"^CHESTXRAY_API_KEYS: ") as caught:
        load_settings()
    assert keys not in str(caught.value)


def _set(monkeypatch: pytest.MonkeyPatch, keys: str | None, required: str | None) -> None:
    for name, value in [("API_KEYS", keys), ("REQUIRE_API_KEY", required)]:
        if value is None:
            monkeypatch.delenv(f"CHESTXRAY_{name}", raising=False)
        else:
            monkeypatch.setenv(f"CHESTXRAY_{name}", value)
