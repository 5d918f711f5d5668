import base64
import json
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from chestxray.dataset import Labels, read_dataset
from chestxray.evaluation import plots
from chestxray.evaluation.comparison import comparison_of
from chestxray.evaluation.confounding import given_away
from chestxray.evaluation.evaluate import answered_of, report_of, score_samples
from chestxray.evaluation.report import MAX_ERRORS, write_html
from chestxray.inference import Predictor
from factories import images
from factories.bundles import OTHER_FINDING, write_tiny_bundle
from factories.datasets import LABELS, radiograph_levels, write_dataset, write_files, write_labels

NAMESPACES = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
NOW = datetime(2026, 2, 3, tzinfo=UTC)


def figure(value: float | None) -> dict[str, float | None]:
    spread = None if value is None else 0.01
    return {
        "value": value,
        "ci_low": None if value is None else value - spread,
        "ci_high": None if value is None else value + spread,
    }


def not_judged() -> dict:
    """As ``evidence.evidence_of`` gives it where there are neither boxes nor lung masks."""
    return {
        "side_px": 224,
        "peaks": {"n": 11, "n_subjects": 6, "in_lowest_quarter": figure(0.25)},
        "boxes": None,
        "lungs": None,
        "deletion": {
            "n": 11,
            "n_subjects": 6,
            "patch_share": 0.25,
            "at_peak": figure(0.3),
            "at_random": figure(0.1),
            "peak_over_random": figure(3),
            "n_with_lungs": 0,
            "over_lungs": None,
        },
    }


def judged() -> dict:
    """As :func:`not_judged`, with both."""
    against = (
        "pointing",
        "chance",
        "best_fixed_point",
        "prior_pointing",
        "auprc",
        "prior_auprc",
        "auprc_pooled",
        "prior_auprc_pooled",
    )
    found = not_judged()
    found["boxes"] = {
        "n": 7,
        "n_subjects": 5,
        "n_boxes": 9,
        "findings": {"<i>opacity": 8, "": 1},
        **{name: figure(0.1 + n / 10) for n, name in enumerate(against)},
        "pointing_above_fixed_point": figure(-0.2),
        "best_fixed_point_at": {"x": 0.3, "y": 0.5},
    }
    found["lungs"] = {
        "negative": {"n": 0, "n_subjects": 0},
        "positive": {"n": 4, "n_subjects": 3, "share": figure(0.77), "area": figure(0.24)},
    }
    found["deletion"] |= {"n_with_lungs": 4, "over_lungs": figure(2.5)}
    return found


def stressed() -> dict:
    """As ``stress.stress`` gives it, with five corruptions, so that a row of panels is not full."""
    names = ("contrast", "blur", "noise", "jpeg", "lungs_blacked_out")
    return {
        "n": 22,
        "n_subjects": 12,
        "n_unreadable": 0,
        "operating_point": "balanced",
        "threshold": 0.5,
        "bundle_sha256": "0" * 64,
        "clean": {
            "auroc": figure(0.9),
            "sensitivity": figure(0.8),
            "specificity": figure(0.7),
            "accepted": 1.0,
        },
        "corruptions": {
            name: [
                {
                    "severity": severity,
                    "level": f"{name} at {severity}",
                    "auroc": figure(0.9 - severity / 20),
                    "sensitivity": figure(0.8),
                    "specificity": figure(None),
                    "flipped": severity / 10,
                    "accepted": 0.9,
                    "misread": 0.05,
                    "auroc_change": -severity / 20,
                    "sensitivity_change": 0.0,
                    "specificity_change": 0.0,
                }
                for severity in range(1, 6)
            ]
            for name in names
        },
        "same_radiograph": {
            "png_16_bit": {"n": 22, "p95": 0.012, "within_0_05": 1.0},
            "jpeg_40": {"n": 0, "p95": None, "within_0_05": None},
        },
        "clinic": {
            "worst_auroc_change": {"corruption": "blur", "severity": 2, "change": -0.1},
        },
    }


class Page(HTMLParser):
    """What a page is made of, for tests to ask."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(file.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def pictures(self) -> list[str]:
        return [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]

    def svgs(self) -> list[str]:
        mark = "data:image/svg+xml;base64,"
        return [
            base64.b64decode(picture.removeprefix(mark)).decode()
            for picture in self.pictures()
            if picture.startswith(mark)
        ]


@pytest.fixture(scope="module")
def predictor(tmp_path_factory) -> Predictor:
    folder = tmp_path_factory.mktemp("report") / "bundle"
    return Predictor.load(write_tiny_bundle(folder, name="tiny <em>& small"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory, predictor):
    folder = write_dataset(tmp_path_factory.mktemp("report") / "data", 8)
    normal, pneumonia = (images.png(radiograph_levels(9, opacity=o)) for o in (False, True))
    seen = {f"NORMAL/view {n}.png": radiograph_levels(50 + n, opacity=False) for n in range(9)}
    others = {
        "NORMAL/<b>.png": normal,
        "PNEUMONIA/<b>.png": pneumonia,
        "PNEUMONIA/copy.png": pneumonia,
        "PNEUMONIA/<script>torn.png": pneumonia[:200],
    }
    write_files(folder, {path: images.png(levels) for path, levels in seen.items()} | others)
    write_labels(
        folder,
        [
            {
                "file": path,
                "patient": path,
                "view": "" if path in others else "P<u>A" if "1" in path else "AP",
                "ward": "north" if n % 2 else "south",
                "licence": "free",
                "source": "here" if n % 3 else "<there>",
            }
            for n, path in enumerate([*seen, *others])
        ],
    )
    return score_samples(predictor, read_dataset(folder, LABELS), threads=2)


@pytest.fixture(scope="module")
def report(predictor, scored) -> dict:
    report = report_of(predictor, scored, "data <set>", "all", prevalence=0.1)
    report["shortcuts"] = {
        "grey_statistics": {"auroc": figure(0.83)},
        "size_bytes": None,
        "n_folds": 5,
    }
    report["evidence"] = judged()
    report["given_away"] = given_away(answered_of(scored))
    report["comparison"] = comparison_of(predictor, scored, predictor, scored)
    # As it comes back from report.json: nothing is drawn from anything else.
    return json.loads(json.dumps(report, allow_nan=False))


@pytest.fixture(scope="module")
def file(tmp_path_factory, report, scored, predictor) -> Path:
    file = tmp_path_factory.mktemp("report") / "report.html"
    write_html(report, scored, predictor.manifest, file, stress=stressed(), now=NOW)
    return file


@pytest.fixture(scope="module")
def page(file) -> Page:
    return Page(file)


def test_the_page_asks_no_other_host_and_no_other_file_for_anything(page, file):
    for tag, attributes in page.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name in ("src", "href", "srcset", "action", "background", "data", "poster"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not any(name.startswith("on") for name in attributes)
    text = file.read_text(encoding="utf-8")
    assert "://" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert len(page.svgs()) == 6
    for svg in page.svgs():
        assert set(re.findall(r"\w+://[^\"'\s<>]*", svg)) <= NAMESPACES
        assert all(link.startswith("#") for link in re.findall(r"href=\"([^\"]*)\"", svg))


def test_names_of_files_bundles_and_views_are_text_and_never_markup(page, file):
    text = file.read_text(encoding="utf-8")
    assert not {"b", "em", "i", "u", "script", "set"} & {tag for tag, _ in page.tags}
    assert "&lt;script&gt;torn.png" in text
    assert "<b>.png" not in text
    for name in (
        "tiny <em>& small",
        "data <set>",
        "P<u>A",
        "PNEUMONIA/<script>torn.png",
        "<i>opacity",
    ):
        assert name in page.text


def test_the_page_says_what_was_scored_by_what_and_when(page, report):
    assert f"{report['n']} of {report['n_subjects']} subjects" in page.text
    assert report["bundle_sha256"] in page.text
    assert "03 February 2026" in page.text
    assert "Not a medical device" in page.text


def test_the_key_figures_stand_with_their_intervals(page, report):
    for name in ("auroc", "brier", "sensitivity"):
        of = report[name]
        assert f"{of['value']:.3f}" in page.text
        assert f"{of['ci_low']:.3f}–{of['ci_high']:.3f}" in page.text


def test_the_prevalence_behind_the_calibration_is_said_aloud(page):
    assert "calibrated where 50.0% had PNEUMONIA (synthetic radiographs, n = 64)" in page.text
    assert "10.0% (asked for)" in page.text


def test_what_is_reached_without_lungs_stands_beside_the_bundles_auroc(page):
    block = page.text.split("What is reached without lungs")[1].split("Compared with")[0]
    assert "0.650 (0.640–0.660)" in block  # lungs blacked out, severity 5
    assert "0.830 (0.820–0.840)" in block
    assert "too few subjects" in block


def section(page: Page, heading: str, after: str) -> str:
    return page.text.split(heading)[1].split(after)[0]


def test_the_evidence_stands_beside_what_is_reached_without_looking(page):
    block = section(page, "Where the evidence lies", "Duplicates")
    assert "0.100 (0.090–0.110)0.500 (0.490–0.510)" in block.replace("\n", "")  # the evidence
    assert "0.300 (0.290–0.310)" in block  # the best fixed point
    assert "−0.200 (−0.210 to −0.190)" in block
    assert "opacity 8, unnamed 1" in block
    assert "0.770 (0.760–0.780)" in block
    assert "+2.500" in block
    assert "not validated" in block


def test_evidence_without_a_box_of_a_radiograph_with_the_finding_says_so(
    tmp_path, report, predictor
):
    none = {**not_judged(), "boxes": {"n": 0, "n_subjects": 0}}
    write_html({**report, "evidence": none}, [], predictor.manifest, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "None of the boxes given is of a radiograph with PNEUMONIA" in page.text


def test_columns_of_one_value_are_left_out_and_others_stand_with_their_views(page):
    block = section(page, "Groups and views", "What the answers give away")
    assert "ward" in block
    assert "north" in block
    assert "licence" not in block
    assert "– AP" in block


def test_calibration_and_certainty_are_told_of_each_source(page):
    for heading, after in (("Calibration", "Whether acting"), ("The uncertain zone", "Groups and")):
        block = section(page, heading, after)
        assert "here" in block
        assert "<there>" in block


def test_what_the_answers_give_away_is_told_for_each_label(page, report):
    block = section(page, "What the answers give away", "Where the evidence lies")
    assert "view: AP from P<u>A" in block
    assert block.count("source: ") == len(
        [row for row in report["given_away"] if row["what"] == "source"]
    )


def test_the_net_benefit_stands_beside_acting_on_all(page, report):
    block = section(page, "Whether acting on it pays", "Predictive values")
    row = report["decision_curve"][1]
    assert "0.10" in block
    for name in ("net_benefit", "treat_all"):
        assert f"{row[name]['value']:+.3f}".replace("-", "−") in block


def test_a_bundle_compared_with_itself_differs_by_nothing(page):
    block = page.text.split("Compared with")[1].split("Under stress")[0]
    assert block.count("0.000 (0.000 to 0.000)") == 7


def test_every_corruption_is_in_the_table(page):
    for name, severities in stressed()["corruptions"].items():
        assert name.replace("_", " ") in page.text
        for at in severities:
            assert at["level"] in page.text
    assert "−0.100 at worst (blur, severity 2)" in page.text


def test_the_worst_errors_are_shown_the_surest_first_with_their_heatmaps(page, scored):
    wrong = [
        (abs(s.prediction.probability - s.sample.positive), s.sample.path)
        for s in scored
        if s.prediction is not None and s.prediction.label != s.sample.truth
    ]
    expected = [path for _, path in sorted(wrong, key=lambda e: (-e[0], e[1]))][:MAX_ERRORS]
    assert len(expected) > 1
    block = page.text.split("The worst errors")[1]
    assert re.findall(r"(?:NORMAL|PNEUMONIA)/.*", block) == expected
    pngs = [p for p in page.pictures() if p.startswith("data:image/png;base64,")]
    assert len(pngs) == 2 * len(expected)
    assert all(base64.b64decode(p.partition(",")[2]).startswith(b"\x89PNG") for p in pngs)


def test_the_page_does_without_stress_comparison_groups_views_and_figures(tmp_path, predictor):
    dark = images.png(radiograph_levels(9, opacity=False))
    folder = write_files(tmp_path / "two", {"NORMAL/n.png": dark, "PNEUMONIA/p.png": dark})
    scored = score_samples(predictor, read_dataset(folder, LABELS), threads=1)
    report = report_of(predictor, scored, "two", "held-out subjects")
    report["shortcuts"] = {"grey_statistics": None, "size_bytes": None, "n_folds": 0}
    report |= {"evidence": not_judged(), "given_away": []}
    assert report["operating_points"]["rule_in"]["precision"]["value"] is None
    write_html(report, scored, predictor.manifest, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "None" not in page.text
    assert "nan" not in page.text
    assert "Compared with" not in page.text
    assert "No boxes were given (--boxes FILE)" in page.text
    assert "No lung masks were given (--lungs FILE)" in page.text
    assert "there is nothing to tell" in page.text
    assert "Under stress" not in page.text
    assert "--prevalence" in page.text
    assert "Every file could be read." in page.text


def test_the_page_speaks_of_the_bundles_own_finding(tmp_path):
    bundle = write_tiny_bundle(tmp_path / "bundle", finding=OTHER_FINDING)
    predictor, labels = Predictor.load(bundle), Labels("DRY", "EFFUSION")
    folder = write_dataset(tmp_path / "data", 6, labels=labels)
    scored = score_samples(predictor, read_dataset(folder, labels), threads=1)
    report = report_of(predictor, scored, "data", "all")
    report["shortcuts"] = {"grey_statistics": None, "size_bytes": None, "n_folds": 0}
    report |= {"evidence": not_judged(), "given_away": []}
    write_html(report, scored, predictor.manifest, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8").replace("NORMAL2-IM", "a group")
    assert not re.search("normal|pneumonia", text.split("</style>")[1], re.IGNORECASE)
    assert "6 DRY, 6 EFFUSION" in page.text
    assert "Telling EFFUSION from DRY" in page.text


def test_a_plot_is_the_same_every_time(report):
    assert plots.histograms(report) == plots.histograms(report)


def test_a_plot_marks_every_operating_point(report):
    one = {**report, "operating_points": {"only": report["operating_points"]["balanced"]}}
    for draw in (plots.roc, plots.precision_recall):
        assert draw(report).count('id="line2d_') > draw(one).count('id="line2d_')
