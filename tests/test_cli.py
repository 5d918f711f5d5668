"""The command line: what it prints, to which stream, and with which exit code."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from chestxray import __version__
from chestxray.inference import Predictor
from chestxray.inference.rendering import NOT_VALIDATED
from chestxray.service.app import create_app
from chestxray.service.http.keys import name_of
from chestxray.service.settings import Settings, load_settings
from factories.bundles import write_tiny_bundle
from factories.command_line import chestxray
from factories.requests import radiograph_png
from factories.servers import serving


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def radiographs(tmp_path: Path) -> list[Path]:
    files = []
    for seed in range(3):
        file = tmp_path / f"radiograph {seed}.png"
        file.write_bytes(radiograph_png(seed))
        files.append(file)
    return files


def test_predict_answers_in_a_line_for_each_file(bundle, radiographs) -> None:
    code, out, err = chestxray("predict", *radiographs, "--bundle", bundle)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 3
    for line, file in zip(lines, radiographs, strict=True):
        assert line.startswith(("NORMAL ", "PNEUMONIA "))
        assert str(file) in line


@pytest.mark.parametrize("point", ["screening", "balanced", "rule_in"])
def test_predict_as_json_prints_what_the_service_answers(
    bundle, radiographs, tmp_path, point
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not a picture")
    files = [*radiographs, broken]
    code, out, err = chestxray(
        "predict", *files, "--json", "--bundle", bundle, "--operating-point", point
    )
    assert code == 3
    assert err.count("\n") == 1
    assert "broken.jpg" in err

    transport = httpx.ASGITransport(
        create_app(Settings(bundle=bundle), serving(Predictor.load(bundle)))
    )

    async def ask() -> dict:
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            sent = [("files", (str(file), file.read_bytes())) for file in files]
            answer = await client.post(
                "/predict_batch", files=sent, params={"operating_point": point}
            )
            return answer.json()

    printed, answered = [json.loads(line) for line in out.splitlines()], asyncio.run(ask())
    # The one thing that the command line has none of.
    assert answered["results"][-1]["error"].pop("request_id")
    assert printed[-1]["error"].pop("request_id") is None
    assert printed == answered["results"]


def test_predict_writes_a_heatmap_for_each_file(bundle, radiographs, tmp_path) -> None:
    twin = tmp_path / "elsewhere" / radiographs[0].name
    twin.parent.mkdir()
    twin.write_bytes(radiographs[0].read_bytes())
    folder = tmp_path / "heatmaps"
    code, _, _ = chestxray("predict", *radiographs, twin, "--heatmap", folder, "--bundle", bundle)
    assert code == 0
    written = list(folder.iterdir())
    assert len(written) == 4
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in written)


def test_predict_warns_where_it_writes_heatmaps_that_are_not_validated(
    bundle, radiographs, tmp_path
) -> None:
    validated = write_tiny_bundle(tmp_path / "validated", validated=True)
    for of, n_warned in ((bundle, len(radiographs)), (validated, 0)):
        _, out, _ = chestxray("predict", *radiographs, "--heatmap", tmp_path, "--bundle", of)
        assert out.count(f"[{NOT_VALIDATED}]") == n_warned
    _, out, _ = chestxray("predict", *radiographs, "--bundle", bundle)
    assert NOT_VALIDATED not in out


def test_a_file_that_fails_alone_is_exit_code_1(bundle, tmp_path) -> None:
    empty = tmp_path / "empty.png"
    empty.write_bytes(b"")
    code, out, err = chestxray("predict", empty, "--bundle", bundle)
    assert (code, out) == (1, "")
    assert err == f"chestxray: {empty}: the file is empty\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "no-such-file.png"],
        ["predict", __file__, "--operating-point", "no-such-point"],
        ["predict", __file__, "--no-such-option"],
        ["no-such-command"],
        ["serve", "--port", "many"],
        ["evaluate", "--out", "x"],
        ["train", __file__, "--data", ".", "--out", "no-run"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_one_line_and_exit_code_2(bundle, arguments) -> None:
    if arguments[0] == "predict":
        arguments = [*arguments, "--bundle", bundle]
    code, out, err = chestxray(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("chestxray: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", ["predict", "serve"])
def test_a_missing_bundle_is_one_line_and_exit_code_1(tmp_path, command) -> None:
    files = [__file__] if command == "predict" else []
    code, out, err = chestxray(command, *files, "--bundle", tmp_path / "nothing")
    assert (code, out) == (1, "")
    assert "no bundle" in err
    assert err.count("\n") == 1


def test_the_version_is_the_packages() -> None:
    assert chestxray("--version") == (0, f"{__version__}\n", "")


def test_predict_loads_no_web_server_no_pytorch_and_no_matplotlib(bundle, radiographs) -> None:
    code = (
        "import sys; from chestxray.cli import main\n"
        "try: main()\n"
        "finally: print([m for m in ('fastapi', 'uvicorn', 'torch', 'matplotlib')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "predict", radiographs[0], "--bundle", bundle],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == "[]\n"


def test_a_key_is_printed_once_and_its_hash_is_what_the_settings_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, out, err = chestxray("key", "ward-3")
    assert code == 0
    name, _, value = err.strip().partition("=")
    assert out.strip() not in err
    monkeypatch.setenv(name, value)
    settings = load_settings(host="0.0.0.0")  # noqa: S104 - it only settles whether keys are there
    assert settings.demands_key
    assert name_of(out.strip(), settings.api_keys) == "ward-3"


def test_a_key_for_something_that_is_no_name_is_wrong_use() -> None:
    code, out, err = chestxray("key", "ward 3")
    assert (code, out) == (2, "")
    assert err == "chestxray: NAME must be letters, digits, '.', '-' or '_'\n"


def test_serving_within_reach_of_others_without_keys_is_wrong_use() -> None:
    code, out, err = chestxray("serve", "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert (code, out) == (2, "")
    assert err.startswith(
        "chestxray: 0.0.0.0 can be reached from elsewhere: set CHESTXRAY_API_KEYS"
    )
    assert err.count("\n") == 1
