"""One instance becomes an answer or a refusal with its reason."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chestxray.assessment import Registry
from chestxray.imaging import Limits
from chestxray.pacs.config import Route
from chestxray.pacs.identity import author_of, sop_instance_uid
from chestxray.pacs.judging import Answer, Refusal, judge
from factories.bundles import OTHER_FINDING, POPULATION
from factories.dicom_files import DX, data_set, dicom
from factories.hostile import passes_over_every_sample
from factories.pacs import OVERLAY, REPORT, comments, tiny_predictor

OF_ADULTS = POPULATION | {"age_years": [18, 90]}
ADULT = {"PatientAge": "062Y"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    """A bundle for children, then one for adults."""
    return Registry(
        {
            "children": tiny_predictor("a" * 64, validated=True),
            "adults": tiny_predictor(
                "b" * 64,
                seed=1,
                validated=True,
                name="other",
                finding=OTHER_FINDING,
                population=OF_ADULTS,
            ),
        }
    )


BOTH = {"bundles": ["children", "adults"]}


def route(**rule: Any) -> Route:
    return Route.model_validate({"destination": "archive", "input_check": "warn"} | rule)


def noise() -> bytes:
    return dicom(np.random.default_rng(0).integers(0, 4096, (256, 256), np.uint16))


def test_a_chest_is_answered_with_an_overlay_and_a_report(registry: Registry) -> None:
    answer = judge(dicom(), "SENDER", registry, [route()], Limits())
    assert isinstance(answer, Answer)
    assert answer.destination == "archive"
    assert [ds.SOPClassUID for ds in answer.data_sets] == [OVERLAY, REPORT]


@pytest.mark.parametrize(
    ("rule", "kinds", "words"),
    [
        ({}, [REPORT], "no heatmap is given"),
        ({"unvalidated_heatmaps": True}, [OVERLAY, REPORT], "the heatmap is not validated"),
    ],
)
def test_a_heatmap_that_is_not_validated_is_left_out_or_marked_as_the_route_says(
    rule: dict[str, Any], kinds: list[str], words: str
) -> None:
    unvalidated = Registry({"tiny": tiny_predictor("a" * 64)})
    answer = judge(dicom(), "SENDER", unvalidated, [route(**rule)], Limits())
    assert isinstance(answer, Answer)
    assert [ds.SOPClassUID for ds in answer.data_sets] == kinds
    assert comments(answer.data_sets[-1])[-1].startswith(words)
    assert all("Unvalidated" in ds.SeriesDescription for ds in answer.data_sets[:-1])


def test_of_several_bundles_only_those_with_a_validated_heatmap_have_an_overlay(
    registry: Registry,
) -> None:
    mixed = Registry(registry.predictors | {"children": tiny_predictor("a" * 64)})
    rule = BOTH | {"population": "warn"}
    answer = judge(dicom(), "SENDER", mixed, [route(**rule)], Limits())
    assert isinstance(answer, Answer)
    overlay, report = answer.data_sets
    assert (overlay.SOPClassUID, report.SOPClassUID) == (OVERLAY, REPORT)
    assert overlay.ManufacturerModelName == "other"


def test_an_answer_made_again_has_the_same_uids(registry: Registry) -> None:
    answers = [judge(dicom(), "SENDER", registry, [route()], Limits()) for _ in range(2)]
    uids = [
        [ds.SOPInstanceUID for ds in answer.data_sets]
        for answer in answers
        if isinstance(answer, Answer)
    ]
    assert len(uids) == 2
    assert uids[0] == uids[1]


def test_the_first_route_that_fits_decides(registry: Registry) -> None:
    routes = [
        route(modality=["DX"], destination="second floor"),
        route(modality=["CR", "DX"], destination="archive"),
        route(destination="rest"),
    ]
    found = [
        judge(dicom(Modality=modality, SOPClassUID=DX), "SENDER", registry, routes, Limits())
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
        ({"modality": [""]}, "not_routed"),
        ({"body_part": [""]}, "not_routed"),
        ({"body_part": ["THORAX"]}, "not_routed"),
        ({"operating_point": "screening"}, None),
    ],
)
def test_what_no_route_fits_is_refused(
    registry: Registry, rule: dict[str, Any], reason: str | None
) -> None:
    found = judge(dicom(), "SENDER", registry, [route(**rule)], Limits())
    assert (found.reason if isinstance(found, Refusal) else None) == reason


@pytest.mark.parametrize(
    ("rule", "attributes"),
    [
        ({"modality": ["DX"]}, {"Modality": "DR"}),
        ({"modality": ["DR"]}, {"Modality": "DR"}),
        ({"modality": ["CR"]}, {"Modality": "RG"}),
        ({"modality": [""]}, {"Modality": "OT"}),
        ({"modality": ["OT"]}, {"Modality": "OT"}),
        ({"body_part": ["CHEST"]}, {"BodyPartExamined": "PORT CHEST"}),
        ({"body_part": ["CHEST"]}, {"BodyPartExamined": "THORAX"}),
        ({"body_part": ["THORAX"]}, {"BodyPartExamined": "THORAX"}),
        ({"body_part": ["CHEST"]}, {"BodyPartExamined": "BRUST"}),
        ({"body_part": [""]}, {"BodyPartExamined": "UNKNOWN"}),
        ({"body_part": ["Ward 3"]}, {"BodyPartExamined": "WARD 3"}),
    ],
    ids=str,
)
def test_a_route_names_what_words_mean_or_the_words_themselves(
    registry: Registry, rule: dict[str, Any], attributes: dict[str, Any]
) -> None:
    found = judge(dicom(**attributes), "SENDER", registry, [route(**rule)], Limits())
    assert isinstance(found, Answer)


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
    registry: Registry, data: bytes, reason: str | None
) -> None:
    found = judge(data, "SENDER", registry, [route()], Limits())
    assert isinstance(found, Refusal)
    if reason is not None:
        assert found.reason == reason


def test_a_limit_is_a_refusal(registry: Registry) -> None:
    found = judge(dicom(), "SENDER", registry, [route()], Limits(max_pixels=100))
    assert found == Refusal("too_many_pixels")


@pytest.mark.skipif(sys.platform != "linux", reason="processes are limited on Linux")
def test_a_frame_whose_decoding_is_given_up_is_refused_as_any_other(registry: Registry) -> None:
    data = passes_over_every_sample(2000)
    assert judge(data, "SENDER", registry, [route()], Limits()) == Refusal("too_costly")


def test_what_is_no_chest_is_refused_or_answered_as_the_route_says(registry: Registry) -> None:
    refusing = judge(noise(), "SENDER", registry, [route(input_check="refuse")], Limits())
    warning = judge(noise(), "SENDER", registry, [route(input_check="warn")], Limits())
    assert refusing == Refusal("not_a_chest_radiograph")
    assert isinstance(warning, Answer)


def test_the_operating_point_of_the_route_decides(registry: Registry) -> None:
    texts = set()
    for point in ("screening", "rule_in"):
        found = judge(dicom(), "SENDER", registry, [route(operating_point=point)], Limits())
        assert isinstance(found, Answer)
        assert point in str(found.data_sets[-1])
        texts.add(str(found.data_sets[-1]))
    assert len(texts) == 2


@pytest.mark.parametrize(
    ("attributes", "fact", "reason"),
    [
        (ADULT, "population", "outside_population"),
        ({"Modality": "CT"}, "acquisition", "wrong_modality"),
        ({"BodyPartExamined": "HAND"}, "acquisition", "wrong_body_part"),
        ({"ViewPosition": "LL"}, "acquisition", "wrong_view"),
    ],
)
def test_what_a_bundle_does_not_know_is_refused_or_answered_with_a_warning_as_the_route_says(
    registry: Registry, attributes: dict[str, Any], fact: str, reason: str
) -> None:
    data = dicom(**attributes)
    assert judge(data, "SENDER", registry, [route()], Limits()) == Refusal(reason)
    answer = judge(data, "SENDER", registry, [route(**{fact: "warn"})], Limits())
    plain = judge(dicom(), "SENDER", registry, [route()], Limits())
    assert isinstance(answer, Answer)
    assert isinstance(plain, Answer)
    assert len(comments(answer.data_sets[-1])) == len(comments(plain.data_sets[-1])) + 1


def test_an_age_that_is_not_known_is_answered_with_a_warning(registry: Registry) -> None:
    answer = judge(
        dicom(PatientAge=None, PatientBirthDate=None), "SENDER", registry, [route()], Limits()
    )
    assert isinstance(answer, Answer)
    assert any("age is not known" in text for text in comments(answer.data_sets[-1]))


def test_each_bundle_that_answers_has_its_overlay_and_all_are_in_one_report(
    registry: Registry,
) -> None:
    rule = BOTH | {"population": "warn"}
    answer = judge(dicom(), "SENDER", registry, [route(**rule)], Limits())
    assert isinstance(answer, Answer)
    assert [ds.SOPClassUID for ds in answer.data_sets] == [OVERLAY, OVERLAY, REPORT]
    predictors = list(registry.predictors.values())
    authors = [author_of(predictors[:1]), author_of(predictors[1:]), author_of(predictors)]
    assert [ds.SOPInstanceUID for ds in answer.data_sets] == [
        sop_instance_uid(kind, data_set(), author.sha256)
        for kind, author in zip(("overlay", "overlay", "report"), authors, strict=True)
    ]
    said = [
        text for text in comments(answer.data_sets[-1]) if text.startswith("NOT FOR DIAGNOSTIC USE")
    ]
    assert len(said) == 2


@pytest.mark.parametrize(
    ("attributes", "names"), [({}, ("tiny", "other")), (ADULT, ("other", "tiny"))]
)
def test_where_one_bundle_refuses_and_another_answers_the_report_names_the_refusal(
    registry: Registry, attributes: dict[str, Any], names: tuple[str, str]
) -> None:
    answering, refusing = names
    answer = judge(dicom(**attributes), "SENDER", registry, [route(**BOTH)], Limits())
    assert isinstance(answer, Answer)
    overlay, report = answer.data_sets
    assert (overlay.SOPClassUID, report.SOPClassUID) == (OVERLAY, REPORT)
    assert overlay.ManufacturerModelName == answering
    *_, named = comments(answer.data_sets[-1])
    assert f"not assessed by {refusing} (bundle_sha256=" in named
    assert "outside_population" in named


def test_where_all_bundles_refuse_the_first_ones_reason_counts(registry: Registry) -> None:
    youth = dicom(PatientAge="012Y")
    lateral = dicom(PatientAge="062Y", ViewPosition="LL")
    for data, reason in ((youth, "outside_population"), (lateral, "wrong_view")):
        assert judge(data, "SENDER", registry, [route(**BOTH)], Limits()) == Refusal(reason)


def test_a_route_without_bundles_asks_the_default_alone(registry: Registry) -> None:
    assert judge(dicom(**ADULT), "SENDER", registry, [route()], Limits()) == Refusal(
        "outside_population"
    )
    adults = route(bundles=["adults"])
    assert isinstance(judge(dicom(**ADULT), "SENDER", registry, [adults], Limits()), Answer)


def test_one_bundle_answers_the_same_whoever_else_is_there(registry: Registry) -> None:
    alone = Registry({"children": registry.predictors["children"]})
    answers = [judge(dicom(), "SENDER", of, [route()], Limits()) for of in (registry, alone)]
    first, second = (str(of.data_sets) for of in answers if isinstance(of, Answer))
    assert first == second


PUBLISHED = {
    "966_fixed": None,
    "gdcm-CR-MONO1-10-chest": None,
    "RG1_J2KI": "outside_population",
    "RG1_JLSN": "outside_population",
    "chest_jpeg_baseline": "outside_population",
    "chest_jpeg_baseline_monochrome1": "outside_population",
}
"""Published chests; of two the age is not known, the others are adults."""


def test_a_bundle_that_knows_children_refuses_adults_of_a_known_age_or_warns(
    shared_data: Path, registry: Registry
) -> None:
    for name, reason in PUBLISHED.items():
        data = (shared_data / "dicom" / f"{name}.dcm").read_bytes()
        found = judge(data, "SENDER", registry, [route(input_check="warn")], Limits())
        assert (found.reason if isinstance(found, Refusal) else None) == reason
        warning = route(input_check="warn", population="warn")
        answer = judge(data, "SENDER", registry, [warning], Limits())
        assert isinstance(answer, Answer)
        assert any("aged 1 to 5 years" in text for text in comments(answer.data_sets[-1]))
