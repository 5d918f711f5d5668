"""One instance becomes an answer or a refusal with its reason."""

from typing import Any

import numpy as np
import pytest

from chestxray.imaging import Limits
from chestxray.inference import Predictor
from chestxray.pacs.config import Route
from chestxray.pacs.judging import Answer, Refusal, judge
from factories.bundles import write_tiny_bundle
from factories.dicom_files import DX, dicom
from factories.pacs import OVERLAY, REPORT


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle")))


def route(**rule: Any) -> Route:
    return Route.model_validate({"destination": "archive", "input_check": "warn"} | rule)


def noise() -> bytes:
    return dicom(np.random.default_rng(0).integers(0, 4096, (256, 256), np.uint16))


def test_a_chest_is_answered_with_an_overlay_and_a_report(predictor: Predictor) -> None:
    answer = judge(dicom(), "SENDER", predictor, [route()], Limits())
    assert isinstance(answer, Answer)
    assert answer.destination == "archive"
    assert answer.overlay.SOPClassUID == OVERLAY
    assert answer.report.SOPClassUID == REPORT


def test_an_answer_made_again_has_the_same_uids(predictor: Predictor) -> None:
    answers = [judge(dicom(), "SENDER", predictor, [route()], Limits()) for _ in range(2)]
    uids = [
        (answer.overlay.SOPInstanceUID, answer.report.SOPInstanceUID)
        for answer in answers
        if isinstance(answer, Answer)
    ]
    assert len(uids) == 2
    assert uids[0] == uids[1]


def test_the_first_route_that_fits_decides(predictor: Predictor) -> None:
    routes = [
        route(modality=["DX"], destination="second floor"),
        route(modality=["CR", "DX"], destination="archive"),
        route(destination="rest"),
    ]
    found = [
        judge(dicom(Modality=modality, SOPClassUID=DX), "SENDER", predictor, routes, Limits())
        for modality in ("CR", "DX")
    ]
    assert [answer.destination for answer in found if isinstance(answer, Answer)] == [
        "archive",
        "second floor",
    ]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ({"modality": ["DX"]}, "not_routed"),
        ({"body_part": ["HAND"]}, "not_routed"),
        ({"calling_ae": ["OTHER"]}, "not_routed"),
        ({"operating_point": "screening"}, None),
    ],
)
def test_what_no_route_fits_is_refused(
    predictor: Predictor, rule: dict[str, Any], reason: str | None
) -> None:
    found = judge(dicom(), "SENDER", predictor, [route(**rule)], Limits())
    assert (found.reason if isinstance(found, Refusal) else None) == reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (dicom(Modality="CT"), "wrong_modality"),
        (dicom(BodyPartExamined="HAND"), "wrong_body_part"),
        (dicom(ViewPosition="LL"), "wrong_view"),
        (dicom(PixelData=None), "no_pixel_data"),
        (b"\0" * 128 + b"DICM" + b"nothing", None),
    ],
)
def test_what_cannot_be_judged_is_refused_by_its_code(
    predictor: Predictor, data: bytes, reason: str | None
) -> None:
    found = judge(data, "SENDER", predictor, [route()], Limits())
    assert isinstance(found, Refusal)
    if reason is not None:
        assert found.reason == reason


def test_a_limit_is_a_refusal(predictor: Predictor) -> None:
    found = judge(dicom(), "SENDER", predictor, [route()], Limits(max_pixels=100))
    assert found == Refusal("too_many_pixels")


def test_what_is_no_chest_is_refused_or_answered_as_the_route_says(predictor: Predictor) -> None:
    refusing = judge(noise(), "SENDER", predictor, [route(input_check="refuse")], Limits())
    warning = judge(noise(), "SENDER", predictor, [route(input_check="warn")], Limits())
    assert refusing == Refusal("not_a_chest_radiograph")
    assert isinstance(warning, Answer)


def test_the_operating_point_of_the_route_decides(predictor: Predictor) -> None:
    texts = set()
    for point in ("screening", "rule_in"):
        found = judge(dicom(), "SENDER", predictor, [route(operating_point=point)], Limits())
        assert isinstance(found, Answer)
        assert point in str(found.report)
        texts.add(str(found.report))
    assert len(texts) == 2
