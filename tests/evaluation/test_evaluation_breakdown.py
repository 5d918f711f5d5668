from chestxray.evaluation.breakdown import (
    by_certainty,
    by_column,
    by_group,
    by_source,
    by_view,
    counted_once,
)
from chestxray.evaluation.metrics import FIGURES
from factories.predictions import answered, prediction, sample


def test_a_group_with_the_finding_has_its_sensitivity_and_one_without_its_specificity():
    found = by_group(
        answered(
            [
                (sample("PNEUMONIA/a", group="virus", subject="virus 1"), prediction(0.9)),
                (sample("PNEUMONIA/b", group="virus", subject="virus 1"), prediction(0.8)),
                (sample("PNEUMONIA/c", group="virus"), prediction(0.1, accepted=False)),
                (sample("PNEUMONIA/d", group="virus"), prediction(0.7)),
                (sample("NORMAL/a", group="IM"), prediction(0.2)),
                (sample("NORMAL/b", group="IM"), prediction(0.6)),
                (sample("NORMAL/c"), prediction(0.6)),
            ]
        ),
        0.5,
    )
    assert set(found) == {"virus", "IM"}
    virus, normal = found["virus"], found["IM"]
    assert (virus["truth"], virus["n"], virus["n_subjects"]) == ("PNEUMONIA", 4, 3)
    assert (virus["sensitivity"]["value"], virus["n_refused"]) == (0.75, 1)
    assert (normal["truth"], normal["n"], normal["specificity"]["value"]) == ("NORMAL", 2, 0.5)
    assert "specificity" not in virus
    assert "sensitivity" not in normal


def test_a_file_in_the_other_folder_than_its_name_says_spoils_no_group():
    found = by_group(
        answered(
            [
                (sample("PNEUMONIA/a", group="virus"), prediction(0.9)),
                (sample("NORMAL/b", group="virus"), prediction(0.9)),
            ]
        ),
        0.5,
    )
    assert {(group["truth"], group["n"]) for group in found.values()} == {
        ("NORMAL", 1),
        ("PNEUMONIA", 1),
    }


def test_views_are_judged_apart_and_lack_what_needs_a_missing_truth():
    found = by_view(
        answered(
            [
                (sample("PNEUMONIA/a", view="AP"), prediction(0.9)),
                (sample("NORMAL/a", view="AP"), prediction(0.95)),
                (sample("NORMAL/b", view="AP"), prediction(0.1)),
                (sample("NORMAL/c", view="PA"), prediction(0.1)),
                (sample("NORMAL/d"), prediction(0.9)),
            ]
        ),
        0.5,
    )
    assert set(found) == {"AP", "PA"}
    assert (found["AP"]["n"], found["AP"]["n_negative"], found["AP"]["n_positive"]) == (3, 2, 1)
    assert found["AP"]["auroc"]["value"] == 0.5
    assert found["PA"]["specificity"]["value"] == 1
    for name in ("auroc", "sensitivity", "precision"):
        assert found["PA"][name] == {"value": None, "ci_low": None, "ci_high": None}
    assert set(FIGURES) <= set(found["PA"])


def test_there_are_no_groups_and_no_views_where_none_are_named():
    some = answered([(sample("PNEUMONIA/a"), prediction(0.9)), (sample("NORMAL/a"), prediction(0))])
    assert (by_group(some, 0.5), by_view(some, 0.5)) == ({}, {})


def test_every_column_is_judged_by_its_values_and_these_within_their_views():
    found = by_column(
        answered(
            [
                (sample("PNEUMONIA/a", view="AP", more={"ward": "north"}), prediction(0.9)),
                (sample("PNEUMONIA/b", view="PA", more={"ward": "north"}), prediction(0.1)),
                (sample("NORMAL/a", view="AP", more={"ward": "north"}), prediction(0.1)),
                (sample("NORMAL/b", view="PA", more={"ward": "south"}), prediction(0.9)),
                (sample("NORMAL/c"), prediction(0.1)),
            ]
        ),
        0.5,
    )
    assert set(found) == {"source", "view", "ward"}
    assert set(found["source"]) == {"here"}  # a column of one value is told, too
    assert found["source"]["here"]["n"] == 5
    north, south = found["ward"]["north"], found["ward"]["south"]
    assert (north["n"], north["n_negative"], north["n_positive"]) == (3, 1, 2)
    assert north["sensitivity"]["value"] == 0.5
    assert set(FIGURES) <= set(north["views"]["AP"])
    assert north["views"]["AP"]["sensitivity"]["value"] == 1
    assert north["views"]["PA"]["sensitivity"]["value"] == 0
    assert north["views"]["PA"]["auroc"]["value"] is None
    assert (south["n"], south["specificity"]["value"], south["auroc"]["value"]) == (1, 0, None)
    assert "views" not in found["view"]["AP"]


def test_each_source_has_its_figures_its_calibration_and_its_errors_by_certainty():
    found = by_source(
        answered(
            [
                (sample("PNEUMONIA/a", source="there"), prediction(0.9)),
                (sample("NORMAL/a", source="there"), prediction(0.6, uncertain=True)),
                (sample("NORMAL/b"), prediction(0.2)),
                (sample("NORMAL/c"), prediction(0.2)),
            ]
        ),
        0.5,
    )
    here, there = found["here"], found["there"]
    assert (here["n"], here["n_positive"], here["specificity"]["value"]) == (2, 0, 1)
    assert here["calibration"]["observed_expected"]["value"] == 0
    assert here["calibration"]["slope"]["value"] is None
    assert there["calibration"]["observed_expected"]["value"] == 1 / 1.5
    assert (there["uncertain"]["n"], there["uncertain"]["coverage"]) == (1, 0.5)
    assert there["uncertain"]["error_certain"]["value"] == 0
    assert there["uncertain"]["error_uncertain"]["value"] == 1


def test_each_duplicate_counts_once_and_the_first_by_path_counts():
    found = counted_once(
        answered(
            [
                (sample("PNEUMONIA/z", content="same", subject="late"), prediction(0.9)),
                (sample("PNEUMONIA/b", content="same", subject="early"), prediction(0.1)),
                (sample("PNEUMONIA/c", content="same", subject="late"), prediction(0.9)),
                (sample("PNEUMONIA/d"), prediction(0.9)),
                (sample("NORMAL/a"), prediction(0.1)),
                (sample("NORMAL/b"), prediction(0.7)),
            ]
        ),
        0.5,
    )
    assert found["n_copies"] == 2
    once = found["counted_once"]
    assert (once["n"], once["n_subjects"]) == (4, 4)
    assert once["sensitivity"]["value"] == 0.5  # b is missed, d found; 3 of 4 if all counted
    assert once["specificity"]["value"] == 0.5
    assert once["auroc"]["value"] == (0.5 + 0 + 1 + 1) / 4  # b ties with one NORMAL


def test_errors_are_counted_apart_for_certain_and_uncertain_answers():
    found = by_certainty(
        answered(
            [
                (sample("PNEUMONIA/a"), prediction(0.9)),
                (sample("PNEUMONIA/b"), prediction(0.1)),
                (sample("NORMAL/a"), prediction(0.1)),
                (sample("NORMAL/b"), prediction(0.1)),
                (sample("NORMAL/c"), prediction(0.52, uncertain=True)),
            ]
        ),
        0.5,
    )
    assert (found["n"], found["coverage"]) == (1, 0.8)
    assert found["error_certain"]["value"] == 0.25
    assert found["error_uncertain"] == {"value": 1.0, "ci_low": 1.0, "ci_high": 1.0}


def test_where_nothing_is_uncertain_its_error_is_none():
    found = by_certainty(
        answered([(sample("PNEUMONIA/a"), prediction(0.9)), (sample("NORMAL/a"), prediction(0))]),
        0.5,
    )
    assert (found["n"], found["coverage"], found["error_uncertain"]["value"]) == (0, 1, None)
    assert found["error_certain"]["value"] == 0
