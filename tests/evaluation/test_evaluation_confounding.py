"""Within one label, the logit should tell neither view nor source nor how much lung is seen."""

import numpy as np

from chestxray.evaluation.confounding import given_away
from factories.predictions import answered, prediction, sample


def told(rows: list[dict]) -> dict[tuple[str, str, str], float]:
    return {(row["truth"], row["what"], row["one"]): row["auroc"]["value"] for row in rows}


def test_a_logit_that_follows_the_view_gives_it_away_within_each_label():
    found = given_away(
        answered(
            (
                sample(f"{label}/{view}{n}", view=view),
                prediction(0.5, logit=n + 10 * (view == "AP") + 100 * (label == "PNEUMONIA")),
            )
            for label in ("NORMAL", "PNEUMONIA")
            for view in ("AP", "PA")
            for n in range(5)
        )
    )
    assert told(found) == {("NORMAL", "view", "AP"): 1, ("PNEUMONIA", "view", "AP"): 1}
    assert [(row["other"], row["n_one"], row["n_other"]) for row in found] == [("PA", 5, 5)] * 2


def test_a_logit_that_tells_the_label_alone_gives_nothing_away():
    found = given_away(
        answered(
            (
                sample(f"{label}/{view}{source}{n}", view=view, source=source),
                prediction(0.5, logit=n + 100 * (label == "PNEUMONIA")),
            )
            for label in ("NORMAL", "PNEUMONIA")
            for view in ("AP", "PA")
            for source in ("a", "b", "c")
            for n in range(4)
        )
    )
    assert len(found) == 2 * (1 + 3)
    assert set(told(found).values()) == {0.5}


def test_only_the_two_commonest_views_are_told_apart():
    views = ["PA"] * 3 + ["AP"] * 2 + ["LL"]
    found = given_away(
        answered(
            (sample(f"NORMAL/{n}", view=view), prediction(0, logit=n))
            for n, view in enumerate(views)
        )
    )
    assert [(row["one"], row["other"]) for row in found] == [("AP", "PA")]


def test_two_sources_make_one_question_and_more_make_one_each():
    for sources, asked in (("ab", [("a", "b")]), ("abc", [(s, "the rest") for s in "abc"])):
        found = given_away(
            answered(
                (sample(f"NORMAL/{s}{n}", source=s), prediction(0, logit=n))
                for s in sources
                for n in range(2)
            )
        )
        assert [(row["one"], row["other"]) for row in found] == asked


def test_the_area_of_the_lungs_is_told_above_from_below_its_median():
    samples = [sample(f"PNEUMONIA/{n}") for n in range(5)]
    lungs = {s.path: np.arange(100) < 10 * n for n, s in enumerate(samples[:4])}
    found = given_away(answered((s, prediction(1, logit=-n)) for n, s in enumerate(samples)), lungs)
    assert told(found) == {("PNEUMONIA", "mask area", "above the median"): 0}
    assert (found[0]["n_one"], found[0]["n_other"]) == (2, 2)


def test_where_there_is_one_view_one_source_and_no_mask_nothing_is_asked():
    pairs = [(sample(f"NORMAL/{n}", view="PA"), prediction(0, logit=n)) for n in range(3)]
    assert given_away(answered(pairs)) == []
