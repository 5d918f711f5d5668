"""What the OpenAPI document says beyond what FastAPI sees: bodies, problems, headers, examples.

Does not: describe anything that the tests do not hold against the running service.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chestxray.assessment import Registry
from chestxray.errors import ChestXrayError, UnsupportedFormatError
from chestxray.service.http.problems import MEDIA_TYPE, PROBLEMS, make_problem
from chestxray.service.http.request_id import HEADER

FILE = {"type": "string", "format": "binary", "description": "a radiograph: DICOM, JPEG or PNG"}
FILE_TYPES = "image/jpeg, image/png, application/dicom"

DESCRIPTIONS = {
    400: "The file is empty, truncated or damaged, or the body or the query is malformed.",
    401: "A key is demanded, and there is none or another.",
    408: "The body comes too slowly.",
    413: "Too many bytes, pixels or files.",
    415: "Not an image that is read here.",
    422: "Readable but refused: too small, no single grey picture, of an age, modality, body part "
    "or view that the model does not know, or not a chest radiograph (then with its score).",
    429: "The queue is full or the wait in it too long; `Retry-After` says when to come back.",
    503: "Starting or shutting down.",
}

REQUEST_ID: dict[str, Any] = {
    "description": "finds the request in the log",
    "schema": {"type": "string", "pattern": "^[0-9A-Fa-f-]{8,64}$"},
}
RETRY_AFTER: dict[str, Any] = {
    "description": "seconds until what waits now will be done",
    "required": True,
    "schema": {"type": "integer", "minimum": 1},
}
WWW_AUTHENTICATE: dict[str, Any] = {
    "required": True,
    "schema": {"type": "string", "const": "Bearer"},
}


def multipart_body(name: str, *, many: bool) -> dict[str, Any]:
    """A body that the route reads by itself: one file in the field ``name``, or many."""
    schema = {"type": "array", "items": FILE, "minItems": 1} if many else FILE
    form = {"type": "object", "required": [name], "properties": {name: schema}}
    content = {"schema": form, "encoding": {name: {"contentType": FILE_TYPES}}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": content}}}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The answers with problem details of ``statuses``, with an example for every code."""
    return {status: _problem(status) for status in statuses}


def other_problems() -> dict[int | str, dict[str, Any]]:
    """For a route that gives no 422: without this, FastAPI would describe its own."""
    return {
        "4XX": {
            "description": "Any other problem.",
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    }


def answered() -> dict[int | str, dict[str, Any]]:
    """The answer with status 200; :func:`complete` adds its example."""
    return {200: {"headers": {HEADER: REQUEST_ID}}}


def _problem(status: int) -> dict[str, Any]:
    # Both models are part of BatchAnswer, so OpenAPI has their schemas.
    schema: dict[str, Any] = {"$ref": "#/components/schemas/Problem"}
    if status == 422:
        schema = {"anyOf": [{"$ref": "#/components/schemas/InputCheckProblem"}, schema]}
    headers = {HEADER: REQUEST_ID}
    if status == 429:
        headers["Retry-After"] = RETRY_AFTER
    if status == 401:
        headers["WWW-Authenticate"] = WWW_AUTHENTICATE
    examples = {error.code: {"value": _example(error)} for error in _errors_of(status)}
    return {
        "description": DESCRIPTIONS[status],
        "headers": headers,
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }


def _errors_of(status: int) -> Iterable[type[ChestXrayError]]:
    """The errors that requests get: the leaves of the tree."""
    return [
        error
        for error, (status_of_error, _) in PROBLEMS.items()
        if status_of_error == status and not error.__subclasses__()
    ]


def _example(error: type[ChestXrayError]) -> dict[str, Any]:
    status, title = PROBLEMS[error]
    example = make_problem(status, title, title, error.code).model_dump()
    example["request_id"] = "5b0c2b6d3f0e4f5aa6b0a6c8b6e0d5d4"
    if error.code == "not_a_chest_radiograph":
        example["input_check"] = {"accepted": False, "score": 0.08}
    return example


def complete(document: dict[str, Any], registry: Registry) -> None:
    """Put into ``document`` what FastAPI cannot know or would drop.

    Which models, labels and operating points there are is the bundles' to say; of examples FastAPI
    leaves out every ``null``.
    """
    manifests = [predictor.manifest for predictor in registry.predictors.values()]
    points = dict.fromkeys(point for manifest in manifests for point in manifest.operating_points)
    labels = dict.fromkeys(label for manifest in manifests for label in manifest.finding.labels)
    choices = {"model": list(registry.predictors), "operating_point": list(points)}
    for path, example in _examples(registry).items():
        operation = document["paths"][path]["post"]
        operation["responses"]["200"]["content"]["application/json"]["example"] = example
    for path in document["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in choices:
                    enum = choices[parameter["name"]]
                    parameter["schema"] = {"type": "string", "enum": enum}
    answer = document["components"]["schemas"]["PredictionAnswer"]
    answer["properties"]["label"]["enum"] = list(labels)


def _examples(registry: Registry) -> dict[str, Any]:
    """An answer of each route, as the default gives it."""
    predictor = registry.predictors[registry.default]
    name, threshold = predictor.operating_point()
    prediction = {
        "label": predictor.manifest.finding.positive,
        "probability": round((1 + threshold) / 2, 2),
        "threshold": round(threshold, 3),
        "operating_point": name,
        "uncertain": False,
        "input_check": {"accepted": True, "score": 0.71},
        "radiograph": {"format": "JPEG", "width_px": 1857, "height_px": 1317},
        "heatmap": None,
        "evidence": None,
        "evidence_validated": predictor.manifest.evidence.validated,
        "preview": None,
        "warnings": [],
        "model": {"name": registry.default, "bundle_sha256": predictor.bundle_sha256},
    }
    batch = {
        "results": [
            {"filename": "a.jpeg", "prediction": prediction},
            {"filename": "b.gif", "error": _example(UnsupportedFormatError)},
        ],
        "succeeded": 1,
        "failed": 1,
    }
    return {"/predict": prediction, "/predict_batch": batch}
