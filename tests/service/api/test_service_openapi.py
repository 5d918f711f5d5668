"""The served OpenAPI document, held against the running service by Schemathesis, every check on."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from schemathesis.checks import CHECKS, load_all_checks

from chestxray.service.app import create_app
from chestxray.service.settings import Settings
from factories.schemathesis_run import Run, held_against_document
from factories.servers import served

SEED, MAX_EXAMPLES = 4, 40
KEY = "a-key-for-tests"


@pytest.fixture(scope="module")
def run(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    keys = {"tests": hashlib.sha256(KEY.encode()).hexdigest()}
    settings = Settings(bundle=tiny_bundle, threads=2, api_keys=keys)
    folder = tmp_path_factory.mktemp("schemathesis")
    with served(create_app(settings)) as client:
        return held_against_document(
            str(client.base_url), KEY, seed=SEED, max_examples=MAX_EXAMPLES, folder=folder
        )


def test_the_service_keeps_every_promise_of_its_document(run: Run) -> None:
    assert run.exit_code == 0, run.output
    assert run.report["failures"] == run.report["errors"] == []
    assert run.report["test_cases"]["generated"] > 200
    assert {name: told for name, told in run.report["warnings"].items() if told} == {}


def test_every_check_is_on(run: Run) -> None:
    load_all_checks()
    assert set(run.checks) == {*CHECKS.get_all_names(), "max_response_time"}, run.output


def test_every_operation_is_answered_and_refused(run: Run) -> None:
    """Else the checks would have had nothing to look at."""
    operations = run.report["operations"]
    assert operations["tested"] == operations["total"] >= 5
    for label in ("POST /predict", "POST /predict_batch"):
        seen = {status for operation, status in run.statuses if operation == label}
        assert {200, 400, 401, 405} <= seen
        assert run.report["valid_rates"][label]["fuzzing"]["accepted"] >= MAX_EXAMPLES // 4


def examples(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Where each example of an answer stands, its schema, and itself."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for status, answer in operation["responses"].items():
                for content in answer.get("content", {}).values():
                    many = {"": {"value": content["example"]}} if "example" in content else {}
                    for name, one in (many | content.get("examples", {})).items():
                        where = f"{method} {path} {status} {name}"
                        yield where, content["schema"], one["value"]


def test_every_example_of_an_answer_follows_its_schema(tiny_bundle: Path) -> None:
    document = create_app(Settings(bundle=tiny_bundle)).openapi()
    found = list(examples(document))
    assert len(found) > 10
    for where, schema, example in found:
        whole = schema | {"components": document["components"]}
        errors = [error.message for error in jsonschema_rs.iter_errors(whole, example)]
        assert errors == [], where
