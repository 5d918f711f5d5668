"""What the application says of itself, and what it does when it is not well."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from chestxray import __version__
from chestxray.errors import BundleMissingError
from chestxray.inference import Predictor
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.requests import predict, radiograph_png
from factories.servers import serving


def test_the_service_is_alive_and_ready(client: httpx.Client) -> None:
    for path, status in [("/livez", "alive"), ("/readyz", "ready")]:
        assert client.get(path).json() == {"status": status}
        assert client.head(path).status_code == 200


def test_metadata_is_the_manifest_without_what_is_for_no_one_to_read(
    client: httpx.Client, predictor: Predictor
) -> None:
    metadata = client.get("/metadata").json()
    assert metadata.pop("bundle_sha256") == predictor.bundle_sha256
    assert metadata.pop("version") == __version__
    assert metadata.pop("model") == "tiny"
    assert metadata.pop("models") == [
        {
            "name": "tiny",
            "bundle_sha256": predictor.bundle_sha256,
            "finding": predictor.manifest.finding.model_dump(),
            "operating_points": ["screening", "balanced", "rule_in"],
        }
    ]
    manifest = predictor.manifest.model_dump(mode="json")
    del manifest["polarity"]
    check = manifest["input_check"]
    manifest["input_check"] = {"threshold": check["threshold"], "rule": check["rule"]}
    assert metadata == manifest


def test_openapi_has_a_file_chooser_and_every_problem(client: httpx.Client) -> None:
    openapi = client.get("/openapi.json").json()
    form = {}
    for path, field in [("/predict", "file"), ("/predict_batch", "files")]:
        operation = openapi["paths"][path]["post"]
        form[path] = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
        assert form[path]["required"] == [field]
        assert {"200", "400", "413", "429", "503"} <= set(operation["responses"])
        assert {parameter["name"] for parameter in operation["parameters"]} == {
            "model",
            "operating_point",
            "heatmap",
            "evidence",
            "preview",
            "input_check",
            "population",
            "acquisition",
        }
    assert form["/predict"]["properties"]["file"]["format"] == "binary"
    assert form["/predict_batch"]["properties"]["files"]["items"]["format"] == "binary"
    references = json.dumps(openapi).split('"$ref": "#/components/schemas/')[1:]
    named = {reference.partition('"')[0] for reference in references}
    assert named <= set(openapi["components"]["schemas"])
    assert "HTTPValidationError" not in named


@pytest.mark.anyio
async def test_until_the_bundle_is_loaded_the_service_is_alive_but_not_ready(
    settings: Settings,
) -> None:
    app = create_app(settings)  # its lifespan, which loads the bundle, has not begun
    async with asgi_client(app) as client:
        assert (await client.get("/livez")).status_code == 200
        for path in ("/readyz", "/metadata"):
            response = await client.get(path)
            assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        response = await client.post("/predict", files={"file": ("a.png", b"x")})
        assert response.status_code == 503
        async with app.router.lifespan_context(app):
            assert (await client.get("/readyz")).status_code == 200


@pytest.mark.anyio
async def test_while_draining_nothing_new_is_accepted(
    settings: Settings, predictor: Predictor
) -> None:
    app = create_app(settings, serving(predictor))
    app.state.service.draining = True
    async with asgi_client(app) as client:
        assert (await client.get("/readyz")).status_code == 503
        response = await client.post("/predict", files={"file": ("a.png", radiograph_png())})
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")


@pytest.mark.anyio
async def test_a_bundle_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    app = create_app(Settings(bundle=tmp_path))
    with pytest.raises(BundleMissingError):
        async with app.router.lifespan_context(app):
            pass


class BrokenPredictor(Predictor):
    """Fails as no predictor should, quoting what it was given."""

    def __init__(self, predictor: Predictor) -> None:
        self.__dict__.update(vars(predictor))

    def predict(self, radiographs, operating_point=None):
        raise ZeroDivisionError(f"{radiographs} at {operating_point}")


@pytest.mark.anyio
async def test_an_unexpected_error_is_a_problem_and_its_log_quotes_nothing_that_was_sent(
    settings: Settings, predictor: Predictor, caplog: pytest.LogCaptureFixture
) -> None:
    app = create_app(settings, serving(BrokenPredictor(predictor)))
    async with app.router.lifespan_context(app), asgi_client(app) as client:
        with caplog.at_level(logging.DEBUG):
            response = await client.post("/predict", files={"file": ("a.png", radiograph_png())})
    assert response.status_code == 500
    assert response.json()["code"] == "internal_error"
    assert response.headers["content-type"] == "application/problem+json"
    assert "ZeroDivisionError" in caplog.text
    assert "in predict" in caplog.text
    assert "Radiograph(" not in caplog.text + response.text


def test_no_file_name_is_logged(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for data in (radiograph_png(), b"text", b""):
            client.post("/predict", files={"file": ("roe_jane.png", data)})
            client.post("/predict_batch", files={"files": ("roe_jane.png", data)})
            client.post("/predict", files={"roe_jane": ("roe_jane.png", data)})
    assert "roe_jane" not in caplog.text


def test_nothing_is_written_to_disk_for_a_large_upload(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_files(*args: object, **kwargs: object) -> None:
        raise AssertionError("a temporary file was opened")

    for name in ("SpooledTemporaryFile", "TemporaryFile", "NamedTemporaryFile", "mkstemp"):
        monkeypatch.setattr(f"tempfile.{name}", no_files)
    assert predict(client, radiograph_png(side_px=400)).status_code == 200


def test_importing_and_making_the_service_loads_neither_torch_nor_matplotlib(
    tiny_bundle: Path,
) -> None:
    program = f"""
import sys
from pathlib import Path
from chestxray.service import server
from chestxray.service.api.served import Served, read_served
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
settings = Settings(bundle=Path({str(tiny_bundle)!r}))
create_app(settings, Served.of(read_served(settings)))
forbidden = {{"torch", "matplotlib", "onnx", "scipy", "pandas"}}
print(sorted(forbidden & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_answers_for_the_command_line_load_no_fastapi() -> None:
    program = "import sys, chestxray.service.api.answers; print('fastapi' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def asgi_client(app) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
