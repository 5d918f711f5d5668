"""The answers of /predict and /predict_batch, over HTTP."""

import base64
import io
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image

from chestxray.assessment import Registry, assess
from chestxray.imaging import read
from chestxray.inference import Predictor, render_heatmap
from chestxray.inference.rendering import NOT_VALIDATED
from chestxray.service.api.answers import batch_element
from chestxray.service.api.schemas import PredictOptions
from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories import images
from factories.bundles import VALIDATION, write_tiny_bundle
from factories.datasets import radiograph_levels
from factories.requests import (
    AGE_IS_NOT_KNOWN,
    decoded_png,
    predict,
    predict_batch,
    radiograph_png,
)
from factories.servers import served

NOISE = images.png(np.random.default_rng(0).integers(0, 256, (96, 96), np.uint8))


def test_the_answer_has_exactly_the_keys_of_the_design(
    client: httpx.Client, predictor: Predictor
) -> None:
    response = predict(client, radiograph_png())
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    answer = response.json()
    assert list(answer) == [
        "label",
        "probability",
        "threshold",
        "operating_point",
        "uncertain",
        "input_check",
        "radiograph",
        "heatmap",
        "evidence",
        "evidence_validated",
        "preview",
        "warnings",
        "model",
    ]
    assert answer["operating_point"] == "balanced"
    assert answer["input_check"]["accepted"] is True
    assert answer["radiograph"] == {"format": "PNG", "width_px": 96, "height_px": 96}
    assert answer["heatmap"] is answer["evidence"] is answer["preview"] is None
    assert answer["warnings"] == [AGE_IS_NOT_KNOWN]
    assert answer["model"] == {"name": "tiny", "bundle_sha256": predictor.bundle_sha256}


def test_the_answer_is_the_predictors(client: httpx.Client, predictor: Predictor) -> None:
    for seed in range(4):
        data = radiograph_png(seed)
        (expected,) = predictor.predict([read(data)])
        answer = predict(client, data).json()
        assert answer["probability"] == expected.probability
        assert answer["label"] == expected.label
        assert answer["input_check"]["score"] == expected.input_check.score


@pytest.mark.parametrize("point", ["screening", "balanced", "rule_in"])
def test_the_operating_point_asked_for_decides(
    client: httpx.Client, predictor: Predictor, point: str
) -> None:
    answer = predict(client, radiograph_png(), operating_point=point).json()
    assert answer["operating_point"] == point
    assert answer["threshold"] == predictor.manifest.operating_points[point].threshold


def test_heatmap_evidence_and_preview_come_when_asked_for(
    client: httpx.Client, predictor: Predictor
) -> None:
    data = radiograph_png()
    (expected,) = predictor.predict([read(data)])
    answer = predict(client, data, heatmap=True, evidence=True, preview=True).json()
    heatmap = decoded_png(answer["heatmap"])
    assert heatmap == render_heatmap(expected.evidence, predictor.manifest.evidence.scale)
    np.testing.assert_allclose(answer["evidence"], expected.evidence, atol=1e-4)
    with Image.open(io.BytesIO(decoded_png(answer["preview"]))) as preview:
        assert (preview.mode, preview.size) == ("L", (64, 64))


@pytest.fixture(scope="module")
def validated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A service whose bundle says that its evidence is validated."""
    bundle = write_tiny_bundle(tmp_path_factory.mktemp("validated"), validated=True)
    with served(create_app(Settings(bundle=bundle))) as client:
        yield client


def test_a_heatmap_that_is_not_validated_comes_with_a_warning(client: httpx.Client) -> None:
    with_it, without = (
        predict(client, radiograph_png(), heatmap=asked).json() for asked in (True, False)
    )
    assert with_it["warnings"] == [AGE_IS_NOT_KNOWN, NOT_VALIDATED]
    assert without["warnings"] == [AGE_IS_NOT_KNOWN]
    assert with_it["evidence_validated"] is without["evidence_validated"] is False
    batch = predict_batch(client, [("a.png", radiograph_png())], heatmap=True).json()
    assert batch["results"][0]["prediction"]["warnings"] == [AGE_IS_NOT_KNOWN, NOT_VALIDATED]


def test_a_validated_heatmap_comes_without_a_warning(validated: httpx.Client) -> None:
    answer = predict(validated, radiograph_png(), heatmap=True).json()
    assert answer["evidence_validated"] is True
    assert answer["warnings"] == [AGE_IS_NOT_KNOWN]


def test_the_metadata_say_whether_and_on_what_the_evidence_is_validated(
    client: httpx.Client, validated: httpx.Client
) -> None:
    said = [of.get("/metadata").json()["evidence"] for of in (client, validated)]
    assert [(of["validated"], of["validation"]) for of in said] == [
        (False, None),
        (True, VALIDATION),
    ]


def test_a_negative_is_read_the_other_way_round_with_a_warning_and_an_upright_preview(
    client: httpx.Client,
) -> None:
    upright = radiograph_levels(3, opacity=False, side_px=64)
    there = predict(client, images.png(upright), preview=True).json()
    back = predict(client, images.png(255 - upright), preview=True).json()
    assert there["warnings"] == [AGE_IS_NOT_KNOWN]
    assert [w for w in back["warnings"] if "inverted" in w]
    assert back["probability"] == pytest.approx(there["probability"], abs=1e-4)
    previews = [
        np.asarray(Image.open(io.BytesIO(decoded_png(a["preview"]))), int) for a in (there, back)
    ]
    assert np.abs(previews[0] - previews[1]).max() <= 1


def test_what_is_no_chest_is_refused_with_its_score(client: httpx.Client) -> None:
    response = predict(client, NOISE)
    assert response.status_code == 422
    problem = response.json()
    assert problem["code"] == "not_a_chest_radiograph"
    assert problem["input_check"]["accepted"] is False
    assert 0 <= problem["input_check"]["score"] < 0.5


def test_with_input_check_warn_what_is_no_chest_is_answered_with_a_warning(
    client: httpx.Client,
) -> None:
    response = predict(client, NOISE, input_check="warn")
    assert response.status_code == 200
    answer = response.json()
    assert answer["input_check"]["accepted"] is False
    assert answer["warnings"] == [
        AGE_IS_NOT_KNOWN,
        "this does not look like a frontal chest radiograph",
    ]
    ordinary = predict(client, radiograph_png(), input_check="warn").json()
    assert ordinary["warnings"] == [AGE_IS_NOT_KNOWN]


def test_the_declared_type_and_name_do_not_matter(client: httpx.Client) -> None:
    plain = predict(client, radiograph_png()).json()
    disguised = client.post("/predict", files={"file": ("x.txt", radiograph_png(), "text/plain")})
    assert disguised.json() == plain


def test_fields_beside_the_file_are_ignored(client: httpx.Client) -> None:
    plain = predict(client, radiograph_png()).json()
    files = {"other": ("o.bin", b"abc"), "file": ("a.png", radiograph_png())}
    response = client.post("/predict", data={"note": "hello"}, files=files)
    assert response.json() == plain


def test_a_batch_answers_in_the_order_sent_and_a_bad_file_costs_only_itself(
    client: httpx.Client,
) -> None:
    good = [radiograph_png(seed) for seed in range(4)]
    files = [
        ("one.png", good[0]),
        ("text.jpg", b"this is no picture"),
        ("two.png", good[1]),
        ("empty.png", b""),
        ("noise.png", NOISE),
        ("one.png", good[2]),
        ("huge.png", good[3] + bytes(400_000)),
        ("four.png", good[3]),
    ]
    response = predict_batch(client, files)
    assert response.status_code == 200
    answer = response.json()
    assert [element["filename"] for element in answer["results"]] == [name for name, _ in files]
    assert (answer["succeeded"], answer["failed"]) == (4, 4)
    errors = {
        element["filename"]: (element["error"]["status"], element["error"]["code"])
        for element in answer["results"]
        if "error" in element
    }
    assert errors == {
        "text.jpg": (415, "unsupported_format"),
        "empty.png": (400, "empty_file"),
        "noise.png": (422, "not_a_chest_radiograph"),
        "huge.png": (413, "too_many_bytes"),
    }
    predictions = [element["prediction"] for element in answer["results"] if "error" not in element]
    assert predictions == [predict(client, data).json() for data in good]
    for element in answer["results"]:
        assert set(element) in ({"filename", "prediction"}, {"filename", "error"})
        assert ("input_check" in element.get("error", {})) == (element["filename"] == "noise.png")


def test_a_batch_takes_the_same_query_for_every_file(client: httpx.Client) -> None:
    files = [("a.png", radiograph_png(0)), ("noise.png", NOISE)]
    query = {"heatmap": True, "evidence": True, "operating_point": "rule_in", "input_check": "warn"}
    answer = predict_batch(client, files, **query).json()
    for (_, data), element in zip(files, answer["results"], strict=True):
        assert element["prediction"] == predict(client, data, **query).json()


def test_a_batch_element_is_what_the_command_line_prints(
    client: httpx.Client, predictor: Predictor
) -> None:
    files = [("a.png", radiograph_png(5)), ("noise.png", NOISE), ("text.jpg", b"no picture")]
    elements = predict_batch(client, files, evidence=True).json()["results"]
    options = PredictOptions(evidence=True)
    assessor = Registry({"tiny": predictor}).assessor(choices=options.choices)
    lines = [
        batch_element(name, assess(data, [assessor])[0], options).model_dump_json()
        for name, data in files
    ]
    (request_id,) = {e["error"].pop("request_id") for e in elements if "error" in e}
    assert request_id
    printed = [json.loads(line) for line in lines]
    assert {e["error"].pop("request_id") for e in printed if "error" in e} == {None}
    assert printed == elements


@pytest.mark.parametrize("name", ["Müller, 图.png", 'quo"te.png', "a b;c=d.png", "../../etc/x.png"])
def test_a_file_name_is_echoed_as_sent(client: httpx.Client, name: str) -> None:
    boundary = "b0undary"
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    disposition = f'Content-Disposition: form-data; name="files"; filename="{escaped}"'
    body = f"--{boundary}\r\n{disposition}\r\n\r\n".encode()
    body += radiograph_png() + f"\r\n--{boundary}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    response = client.post("/predict_batch", content=body, headers=headers)
    assert response.json()["results"][0]["filename"] == name


def test_two_hundred_concurrent_heatmaps_equal_the_serial_ones(client: httpx.Client) -> None:
    bodies = [radiograph_png(seed) for seed in range(10)]
    serial = [predict(client, data, heatmap=True, evidence=True).content for data in bodies]
    with ThreadPoolExecutor(32) as pool:
        asked = [i % 10 for i in range(200)]
        answers = pool.map(
            lambda i: predict(client, bodies[i], heatmap=True, evidence=True).content, asked
        )
        assert [*answers] == [serial[i] for i in asked]


def test_a_heatmap_is_a_data_url_of_a_png(client: httpx.Client) -> None:
    url = predict(client, radiograph_png(), heatmap=True).json()["heatmap"]
    prefix = "data:image/png;base64,"
    assert url.startswith(prefix)
    with Image.open(io.BytesIO(base64.b64decode(url.removeprefix(prefix)))) as image:
        assert (image.format, image.size) == ("PNG", (224, 224))
