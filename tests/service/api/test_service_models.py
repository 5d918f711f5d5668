"""Several models behind one service: asked by name, followed by shadows, replaced at work."""

from __future__ import annotations

import asyncio
import json
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from chestxray.assessment import Registry
from chestxray.errors import BundleDamagedError, BundleMissingError, ConfigError
from chestxray.imaging import read
from chestxray.inference import Predictor
from chestxray.service.api.served import Bundles, Served, read_served
from chestxray.service.app import create_app
from chestxray.service.settings import Settings, load_settings
from factories.bundles import OTHER_FINDING, write_tiny_bundle
from factories.dicom_files import dicom, phantom
from factories.requests import predict, predict_batch, radiograph_png
from factories.servers import served, serving, wait_until

THREE_YEARS = dicom(phantom(12, 96))
SIXTY_YEARS = dicom(phantom(12, 96), PatientAge="060Y")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    points = {"only": {"threshold": 0.4, "rule": "chosen for tests"}}
    return {
        "opacity": write_tiny_bundle(folder / "opacity"),
        "effusion": write_tiny_bundle(
            folder / "effusion",
            seed=1,
            finding=OTHER_FINDING,
            operating_points=points,
            default_operating_point="only",
        ),
        "candidate": write_tiny_bundle(folder / "candidate", seed=2),
    }


@pytest.fixture(scope="module")
def both(folders: dict[str, Path]) -> Settings:
    named = [f"{name}={folders[name]}" for name in ("opacity", "effusion")]
    return load_settings(bundle=named, threads=2)


@pytest.fixture(scope="module")
def client(both: Settings) -> Iterator[httpx.Client]:
    with served(create_app(both)) as client:
        yield client


def figures(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {series: float(value) for series, value in pairs}


# --- by name --------------------------------------------------------------------------------------


def test_each_model_answers_as_if_it_were_served_alone(
    client: httpx.Client, folders: dict[str, Path]
) -> None:
    data = radiograph_png(3)
    for name in ("opacity", "effusion"):
        with served(create_app(load_settings(bundle=[f"{name}={folders[name]}"]))) as alone:
            assert predict(client, data, model=name).json() == predict(alone, data).json()


def test_the_first_model_is_the_default(client: httpx.Client) -> None:
    data = radiograph_png(3)
    assert predict(client, data).json() == predict(client, data, model="opacity").json()
    assert predict(client, data).json()["model"]["name"] == "opacity"
    (result,) = predict_batch(client, [("a", data)], model="effusion").json()["results"]
    assert result["prediction"]["model"]["name"] == "effusion"
    assert result["prediction"]["label"] in ("DRY", "EFFUSION")


def test_a_model_that_there_is_not_is_a_bad_question(client: httpx.Client) -> None:
    for response in (
        predict(client, b"not even read", model="fracture"),
        predict_batch(client, [("a", b"")], model="fracture"),
        client.get("/metadata", params={"model": "fracture"}),
    ):
        assert (response.status_code, response.json()["code"]) == (400, "unknown_model")
        assert "opacity, effusion" in response.json()["detail"]


def test_an_operating_point_is_the_asked_models(client: httpx.Client) -> None:
    data = radiograph_png(3)
    assert predict(client, data, model="effusion", operating_point="only").status_code == 200
    response = predict(client, data, operating_point="only")
    assert (response.status_code, response.json()["code"]) == (400, "unknown_operating_point")


def test_metadata_lists_all_models_and_describes_the_one_asked_for(
    client: httpx.Client, folders: dict[str, Path]
) -> None:
    described = client.get("/metadata").json()
    assert [model["name"] for model in described["models"]] == ["opacity", "effusion"]
    assert described["model"] == "opacity"
    assert described["models"][1]["finding"] == OTHER_FINDING
    other = client.get("/metadata", params={"model": "effusion"}).json()
    assert other["models"] == described["models"]
    assert (other["model"], other["default_operating_point"]) == ("effusion", "only")
    manifest = json.loads((folders["effusion"] / "manifest.json").read_text())
    assert other["operating_points"] == manifest["operating_points"]


def test_the_api_document_lists_models_labels_and_points(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    for path, method in (("/predict", "post"), ("/predict_batch", "post"), ("/metadata", "get")):
        parameters = {p["name"]: p for p in document["paths"][path][method]["parameters"]}
        assert parameters["model"]["schema"]["enum"] == ["opacity", "effusion"]
    points = {p["name"]: p for p in document["paths"]["/predict"]["post"]["parameters"]}
    assert points["operating_point"]["schema"]["enum"] == [
        "screening", "balanced", "rule_in", "only",
    ]  # fmt: skip
    label = document["components"]["schemas"]["PredictionAnswer"]["properties"]["label"]
    assert label["enum"] == ["NORMAL", "PNEUMONIA", "DRY", "EFFUSION"]


def test_answers_are_counted_by_model(client: httpx.Client) -> None:
    before = figures(client)
    answer = predict(client, radiograph_png(3), model="effusion").json()
    after = figures(client)
    labels = f'label="{answer["label"]}",model="effusion",operating_point="only",uncertain="false"'
    series = f"chestxray_predictions_total{{{labels}}}"
    assert after[series] == before.get(series, 0) + 1


def test_settings_name_bundles_as_the_command_line_does(
    monkeypatch: pytest.MonkeyPatch, folders: dict[str, Path]
) -> None:
    told = ",".join(f"{name}={folder}" for name, folder in folders.items())
    monkeypatch.setenv("CHESTXRAY_BUNDLE", told)
    by_variable = load_settings()
    assert by_variable.bundle == tuple(folders.items())
    monkeypatch.delenv("CHESTXRAY_BUNDLE")
    options = [f"{name}={folder}" for name, folder in folders.items()]
    assert load_settings(bundle=options).bundle == by_variable.bundle
    assert load_settings(bundle=[str(folders["opacity"])]).bundle == ((None, folders["opacity"]),)


def test_bundles_that_do_not_go_together_stop_the_start(folders: dict[str, Path]) -> None:
    opacity, effusion = (f"{name}={folders[name]}" for name in ("opacity", "effusion"))
    for wrong, error in (
        ({"bundle": [opacity, opacity]}, ConfigError),
        ({"bundle": [opacity], "shadow": [opacity]}, ConfigError),
        ({"bundle": [opacity], "shadow": [effusion]}, ConfigError),
        ({"bundle": [opacity], "shadow": ["gone=/nowhere"]}, BundleMissingError),
    ):
        with pytest.raises(error):
            read_served(load_settings(**wrong))


# --- shadows --------------------------------------------------------------------------------------


def shadowed(folders: dict[str, Path], share: float) -> Settings:
    return load_settings(
        bundle=[f"opacity={folders['opacity']}", f"effusion={folders['effusion']}"],
        shadow=[f"candidate={folders['candidate']}"],
        shadow_share=share,
        threads=2,
    )


def total(counted: dict[str, float], name: str) -> float:
    return sum(value for series, value in counted.items() if series.startswith(name))


ASSESSED = "chestxray_shadow_assessments_total"
DIFFERED = "chestxray_shadow_probability_difference_count"


def test_a_shadow_assesses_what_the_default_answers_and_is_never_shown(
    folders: dict[str, Path],
) -> None:
    default, candidate = (Predictor.load(folders[name]) for name in ("opacity", "candidate"))
    files = [radiograph_png(seed) for seed in range(12)]
    with (
        served(create_app(shadowed(folders, 1.0))) as client,
        served(create_app(shadowed(folders, 0.0))) as without,
    ):
        expected: dict[str, float] = {}
        for n, data in enumerate(files, start=1):
            response = predict(client, data)
            assert response.json() == predict(without, data).json()
            assert "candidate" not in response.text + str(response.headers)
            wait_until(lambda n=n: figures(client).get(f'{DIFFERED}{{shadow="candidate"}}') == n)
            (ours,), (theirs,) = (p.predict([read(data)]) for p in (default, candidate))
            for point, of in default.manifest.operating_points.items():
                labels = [
                    "PNEUMONIA" if p.probability >= of.threshold else "NORMAL"
                    for p in (ours, theirs)
                ]
                series = (
                    f'{ASSESSED}{{label="{labels[0]}",operating_point="{point}",'
                    f'shadow="candidate",shadow_label="{labels[1]}"}}'
                )
                expected[series] = expected.get(series, 0) + 1
        counted = figures(client)
        assert {s: v for s, v in counted.items() if s.startswith(ASSESSED)} == expected
        agreed = ('label="NORMAL",', 'shadow_label="NORMAL"')
        assert len({all(label in series for label in agreed) for series in expected}) == 2
        told = client.get("/metadata").text + client.get("/openapi.json").text
        assert "candidate" not in told
        assert predict(client, files[0], model="candidate").status_code == 400
        assert total(figures(without), ASSESSED) == 0


def test_a_shadow_follows_nobody_but_the_default_and_nothing_unreadable(
    folders: dict[str, Path],
) -> None:
    with served(create_app(shadowed(folders, 1.0))) as client:
        predict(client, radiograph_png(1), model="effusion")
        predict(client, b"")
        predict(client, radiograph_png(1)[:-20])
        predict(client, radiograph_png(1))  # the last in the queue
        wait_until(lambda: total(figures(client), DIFFERED) == 1)
        assert total(figures(client), ASSESSED) == 3  # one radiograph at three points


def test_a_refusal_is_compared_too(folders: dict[str, Path]) -> None:
    with served(create_app(shadowed(folders, 1.0))) as client:
        assert predict(client, SIXTY_YEARS).status_code == 422
        series = (
            f'{ASSESSED}{{label="refused",operating_point="balanced",shadow="candidate",'
            'shadow_label="refused"}'
        )
        wait_until(lambda: figures(client).get(series) == 1)
        # The shadow is asked as the default was.
        assert predict(client, SIXTY_YEARS, population="warn").status_code == 200
        wait_until(lambda: total(figures(client), DIFFERED) == 1)


def test_about_the_chosen_share_is_assessed(folders: dict[str, Path]) -> None:
    with served(create_app(shadowed(folders, 0.5))) as client:
        for seed in range(60):
            predict(client, radiograph_png(seed))
        counted = figures(client)
        followed = total(counted, DIFFERED) + counted["chestxray_shadow_skipped_total"]
        assert 10 < followed < 50


class Held(Predictor):
    """Waits for leave before it answers."""

    def __init__(self, predictor: Predictor) -> None:
        self.__dict__.update(vars(predictor))
        self.leave = threading.Event()

    def predict(self, radiographs, operating_point=None):
        self.leave.wait(30)
        return super().predict(radiographs, operating_point)


def test_a_slow_shadow_holds_no_answer_up_and_what_it_cannot_follow_is_skipped_and_counted(
    folders: dict[str, Path],
) -> None:
    slow = Held(Predictor.load(folders["candidate"]))
    ours = Served(Registry({"opacity": Predictor.load(folders["opacity"])}), {"slow": slow})
    settings = load_settings(threads=2, shadow_share=1.0)
    with served(create_app(settings, ours)) as client:
        for seed in range(6):
            assert predict(client, radiograph_png(seed)).status_code == 200
        counted = figures(client)
        assert counted["chestxray_shadow_skipped_total"] > 0
        slow.leave.set()
        followed = 6 - counted["chestxray_shadow_skipped_total"]
        wait_until(lambda: total(figures(client), DIFFERED) == followed)
        wait_until(lambda: figures(client)["chestxray_buffered_bytes"] == 0)


class Broken(Predictor):
    """Fails as no predictor should, quoting what it was given."""

    def __init__(self, predictor: Predictor) -> None:
        self.__dict__.update(vars(predictor))

    def predict(self, radiographs, operating_point=None):
        raise ZeroDivisionError(f"{radiographs} of Jane Roe at {operating_point}")


def test_a_shadow_that_fails_is_counted_and_costs_nobody_an_answer(
    folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken(Predictor.load(folders["candidate"]))
    ours = Served(Registry({"opacity": Predictor.load(folders["opacity"])}), {"broken": broken})
    with served(create_app(load_settings(threads=2, shadow_share=1.0), ours)) as client:
        for n in (1, 2):
            assert predict(client, radiograph_png(n)).status_code == 200
            wait_until(lambda n=n: figures(client)["chestxray_shadow_failed_total"] == n)
        wait_until(lambda: figures(client)["chestxray_buffered_bytes"] == 0)
    assert "ZeroDivisionError" in caplog.text
    assert "Jane Roe" not in caplog.text


def test_a_batch_holds_no_picture_but_those_at_work(folders: dict[str, Path]) -> None:
    pictures: list[weakref.ref] = []
    alive = []

    class Counting(Predictor):
        def __init__(self, predictor: Predictor) -> None:
            self.__dict__.update(vars(predictor))

        def predict(self, radiographs, operating_point=None):
            pictures.extend(weakref.ref(radiograph.pixels) for radiograph in radiographs)
            alive.append(sum(picture() is not None for picture in list(pictures)))
            return super().predict(radiographs, operating_point)

    ours = Served(Registry({"one": Counting(Predictor.load(folders["opacity"]))}))
    with served(create_app(load_settings(threads=2), ours)) as client:
        files = [(str(n), radiograph_png(n)) for n in range(12)]
        assert predict_batch(client, files).json()["succeeded"] == 12
    assert len(alive) == 12
    assert max(alive) <= 4  # those of two threads, and what each just put down


# --- replaced at work -----------------------------------------------------------------------------


def test_what_has_begun_ends_with_the_bundles_that_it_began_with(
    folders: dict[str, Path],
) -> None:
    old = Held(Predictor.load(folders["opacity"]))
    new = Predictor.load(folders["candidate"])
    app = create_app(load_settings(threads=2), Served(Registry({"one": old})))
    data = radiograph_png(3)

    async def replaced() -> tuple[httpx.Response, httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        ):
            begun = asyncio.ensure_future(client.post("/predict", files={"file": data}))
            while not app.state.service.admission.in_flight:
                await asyncio.sleep(0.001)
            app.state.service.serve(Served(Registry({"one": new})))
            after = await client.post("/predict", files={"file": data})
            old.leave.set()
            return await begun, after

    before, after = asyncio.run(replaced())
    assert before.json()["model"]["bundle_sha256"] == old.bundle_sha256
    assert after.json()["model"]["bundle_sha256"] == new.bundle_sha256
    (expected,) = new.predict([read(data)])
    assert after.json()["probability"] == expected.probability


def test_a_name_goes_on_asking_for_the_finding_that_it_asked_for(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    link = tmp_path / "current"
    link.symlink_to(folders["opacity"])
    settings = load_settings(bundle=[f"current={link}"])
    before = Served.of(read_served(settings))
    link.unlink()
    link.symlink_to(folders["effusion"])
    with pytest.raises(ConfigError, match="current would ask for another finding"):
        Served.of(read_served(settings), before)
    link.unlink()
    link.symlink_to(folders["candidate"])
    assert Served.of(read_served(settings), before).registry.default == "current"


def test_what_the_metadata_does_not_know_is_a_bad_question(client: httpx.Client) -> None:
    response = client.get("/metadata", params={"modle": "effusion"})
    assert (response.status_code, response.json()["code"]) == (400, "invalid_query")


def test_an_error_says_which_bundle_does_not_work(folders: dict[str, Path], tmp_path: Path) -> None:
    broken = write_tiny_bundle(tmp_path, reference_answers=[{"seed": 7, "logit": 40.0}])
    settings = load_settings(bundle=[f"a={folders['opacity']}", f"b={broken}"])
    with pytest.raises(BundleDamagedError, match="the bundle b: this machine computes"):
        Served.of(read_served(settings))


def test_the_bundles_of_a_process_are_read_as_a_whole(folders: dict[str, Path]) -> None:
    read = read_served(shadowed(folders, 1.0))
    assert isinstance(read, Bundles)
    assert list(read.answering) == ["opacity", "effusion"]
    assert list(read.shadows) == ["candidate"]
    ours = Served.of(read)
    assert ours.registry.default == "opacity"
    assert [a.name for a in ours.shadowing(ours.registry.assessor())] == ["candidate"]
    assert list(ours.shadowing(ours.registry.assessor("effusion"))) == []
    assert serving(Predictor.load(folders["opacity"])).shadows == {}
