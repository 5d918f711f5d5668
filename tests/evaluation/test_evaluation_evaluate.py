import csv
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_auc_score

from chestxray import imaging
from chestxray.dataset import read_dataset
from chestxray.errors import ConfigError, EmptyDatasetError
from chestxray.evaluation.decision_curve import THRESHOLDS
from chestxray.evaluation.evaluate import points_of, report_of, score_samples, write_report
from chestxray.evaluation.metrics import (
    FIGURES,
    negative_predictive_value,
    positive_predictive_value,
)
from chestxray.inference import Predictor
from factories import images
from factories.bundles import write_tiny_bundle
from factories.datasets import LABELS, radiograph_levels, write_dataset, write_files
from factories.dicom_files import dicom


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor.load(write_tiny_bundle(tmp_path_factory.mktemp("bundle")))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 radiographs, among them a duplicate; one that is refused and two that cannot be read."""
    folder = write_dataset(tmp_path_factory.mktemp("evaluate") / "data", 11)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    copied = next((folder / "NORMAL").iterdir())
    whole = images.png(radiograph_levels(99, opacity=True))
    return write_files(
        folder,
        {
            "NORMAL/noise.png": images.png(noise),
            "NORMAL/copy.png": copied.read_bytes(),
            "PNEUMONIA/text.png": b"not a picture at all",
            "PNEUMONIA/torn.png": whole[: len(whole) // 2],
        },
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, predictor: Predictor, dataset: Path) -> Path:
    out = tmp_path_factory.mktemp("report") / "new"
    scored = score_samples(predictor, read_dataset(dataset, LABELS), threads=2)
    write_report(report_of(predictor, scored, "tiny", "all", prevalence=0.1), scored, out)
    return out


@pytest.fixture(scope="module")
def report(written: Path) -> dict:
    return json.loads((written / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows(written: Path) -> list[dict[str, str]]:
    with (written / "predictions.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_report_says_of_what_it_is(report, predictor, dataset):
    samples = read_dataset(dataset, LABELS)
    readable = [s for s in samples if s.file.name not in {"text.png", "torn.png"}]
    assert (report["dataset"], report["split"]) == ("tiny", "all")
    assert report["n"] == len(readable) == 24
    assert report["n_subjects"] == len({s.subject for s in readable})
    assert (report["n_negative"], report["n_positive"]) == (13, 11)
    assert report["labels"] == {"negative": "NORMAL", "positive": "PNEUMONIA"}
    assert report["n_outside_population"] == 0  # no PNG says how old its patient is
    assert report["n_duplicates"] == 1
    assert report["bundle_sha256"] == predictor.bundle_sha256
    assert report["operating_point"] == "balanced"
    assert report["threshold"] == predictor.manifest.operating_points["balanced"].threshold


def test_the_report_has_every_figure_with_its_interval_at_every_operating_point(report):
    assert set(report["operating_points"]) == {"screening", "balanced", "rule_in"}
    for at_point in (report, *report["operating_points"].values()):
        assert "threshold" in at_point
        for name in FIGURES:
            assert set(at_point[name]) == {"value", "ci_low", "ci_high"}
    for name in FIGURES:
        assert report[name] == report["operating_points"]["balanced"][name]


def test_unreadable_files_are_counted_and_named(report, rows):
    assert report["n_unreadable"] == 2
    assert report["unreadable"] == [
        {"path": "PNEUMONIA/text.png", "code": "unsupported_format"},
        {"path": "PNEUMONIA/torn.png", "code": "truncated_file"},
    ]
    assert not {row["path"] for row in rows} & {"PNEUMONIA/text.png", "PNEUMONIA/torn.png"}


def test_radiographs_of_patients_of_another_age_are_counted_and_scored_all_the_same(
    predictor, tmp_path
):
    """The bundle knows ages of 1 to 5 years, and says so; no file can be refused for it here."""
    ages = {"a": "004Y", "b": "045Y", "c": None}
    dates = dict.fromkeys(("PatientBirthDate", "StudyDate", "AcquisitionDate"))
    files = {
        f"{truth}/{name}.dcm": dicom(bits=12, **dates, PatientAge=age, SOPInstanceUID=f"1.{number}")
        for number, truth in enumerate(LABELS)
        for name, age in ages.items()
    }
    scored = score_samples(predictor, read_dataset(write_files(tmp_path, files), LABELS), threads=1)
    report = report_of(predictor, scored, "tiny", "all")
    assert (report["n"], report["n_outside_population"], report["n_unreadable"]) == (6, 2, 0)
    outside = [s.sample.path for s in scored if s.outside_population]
    assert outside == ["NORMAL/b.dcm", "PNEUMONIA/b.dcm"]


def test_files_of_what_the_bundle_is_not_for_count_as_unreadable(predictor, tmp_path):
    files = {
        "NORMAL/a.dcm": dicom(),
        "NORMAL/lateral.dcm": dicom(ViewPosition="LL"),
        "PNEUMONIA/b.dcm": dicom(),
        "PNEUMONIA/foot.dcm": dicom(BodyPartExamined="FOOT"),
        "PNEUMONIA/ultrasound.dcm": dicom(Modality="US"),
    }
    scored = score_samples(predictor, read_dataset(write_files(tmp_path, files), LABELS), threads=2)
    report = report_of(predictor, scored, "tiny", "all")
    assert report["n"] == 2
    assert {row["path"]: row["code"] for row in report["unreadable"]} == {
        "NORMAL/lateral.dcm": "wrong_view",
        "PNEUMONIA/foot.dcm": "wrong_body_part",
        "PNEUMONIA/ultrasound.dcm": "wrong_modality",
    }


def test_refused_radiographs_are_counted_and_scored_all_the_same(report, rows):
    refused = [row for row in rows if row["accepted"] == "false"]
    assert "NORMAL/noise.png" in [row["path"] for row in refused]
    assert report["n_refused"] == len(refused)
    assert all(0 <= float(row["probability"]) <= 1 for row in refused)


def test_the_predictions_have_a_row_for_every_radiograph_that_was_read(written, rows, report):
    first_line = (written / "predictions.csv").read_text(encoding="utf-8").splitlines()[0]
    assert first_line == "path,subject,group,truth,probability,label,accepted"
    assert len(rows) == report["n"]
    published = next(row for row in rows if "person1_virus" in row["path"])
    assert published | {"probability": "", "label": "", "accepted": ""} == {
        "path": published["path"],
        "subject": "virus 1",
        "group": "virus",
        "truth": "PNEUMONIA",
        "probability": "",
        "label": "",
        "accepted": "",
    }


def test_the_predictions_are_those_of_the_predictor(rows, predictor, dataset):
    for row in rows:
        radiograph = imaging.read_file(dataset / row["path"])
        expected = predictor.predict([radiograph])[0]
        assert float(row["probability"]) == pytest.approx(expected.probability, abs=1e-6)
        assert row["label"] == expected.label
        assert row["accepted"] == str(expected.input_check.accepted).lower()


def test_the_figures_follow_from_the_predictions(report, rows):
    truth = np.array([row["truth"] == "PNEUMONIA" for row in rows])
    label = np.array([row["label"] == "PNEUMONIA" for row in rows])
    probability = np.array([float(row["probability"]) for row in rows])
    assert report["accuracy"]["value"] == pytest.approx(np.mean(truth == label))
    assert report["sensitivity"]["value"] == pytest.approx(label[truth].mean())
    assert report["specificity"]["value"] == pytest.approx((~label)[~truth].mean())
    assert report["precision"]["value"] == pytest.approx(truth[label].mean())
    assert report["auroc"]["value"] == pytest.approx(roc_auc_score(truth, probability), abs=1e-3)
    assert report["brier"]["value"] == pytest.approx(np.mean((probability - truth) ** 2), abs=1e-5)


def test_the_confusion_matrix_of_each_operating_point_is_that_of_scikit_learn(report, rows):
    truth = [row["truth"] for row in rows]
    for point in report["operating_points"].values():
        label = [float(row["probability"]) >= point["threshold"] for row in rows]
        labels = ["PNEUMONIA" if positive else "NORMAL" for positive in label]
        (tn, fp), (fn, tp) = confusion_matrix(truth, labels).tolist()
        assert point["confusion"] == {"tp": tp, "fp": fp, "tn": tn, "fn": fn}


def test_predictive_values_are_given_where_prevalence_is_known_or_asked_for(report, predictor):
    folder = report["n_positive"] / report["n"]
    assert report["prevalence"] == {
        "folder": folder,
        "calibration": predictor.manifest.calibration.prevalence,
        "asked": 0.1,
    }
    for point in report["operating_points"].values():
        known = [(row["whose"], row["prevalence"]) for row in point["predictive_values"]]
        assert known == [("folder", folder), ("calibration", 0.5), ("asked", 0.1)]
        found = point["sensitivity"]["value"], point["specificity"]["value"]
        for row in point["predictive_values"]:
            for name, by_bayes in (
                ("ppv", positive_predictive_value(*found, row["prevalence"])),
                ("npv", negative_predictive_value(*found, row["prevalence"])),
            ):
                if row[name]["value"] is None:  # nobody is labelled so
                    assert np.isnan(by_bayes)
                else:
                    assert row[name]["value"] == pytest.approx(by_bayes)
                    assert row[name]["ci_low"] <= row[name]["value"] <= row[name]["ci_high"]


@pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, 60.0, float("nan")])
def test_a_prevalence_that_is_no_share_is_refused(predictor, prevalence):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        report_of(predictor, [], "tiny", "all", prevalence=prevalence)


def test_a_manifest_quotes_of_the_operating_points_no_more_than_their_figures(report):
    points = points_of(report)
    assert set(points) == set(report["operating_points"])
    for name, point in points.items():
        assert set(point) == {"threshold", *FIGURES}
        assert point["auroc"] == report["operating_points"][name]["auroc"]


def test_the_parts_add_up_to_the_whole(report):
    assert set(report["groups"]) == {"IM", "NORMAL2-IM", "virus", "bacteria"}
    assert sum(group["n"] for group in report["groups"].values()) == report["n"] - 2  # unnamed
    assert report["views"] == {}
    assert report["duplicates"]["n_copies"] == report["n_duplicates"] == 1
    assert report["duplicates"]["counted_once"]["n"] == report["n"] - 1
    assert report["uncertain"]["n"] == report["n_uncertain"]
    assert {name: of["n"] for name, of in report["sources"].items()} == {"data": report["n"]}
    assert set(report["columns"]) == {"source", "group"}
    for name, of in report["columns"]["group"].items():
        assert of["n"] == report["groups"][name]["n"]


def test_the_report_says_whether_probabilities_mean_what_they_say_and_acting_on_them_pays(report):
    assert set(report["calibration"]) == {"slope", "intercept", "observed_expected"}
    assert [row["threshold"] for row in report["decision_curve"]] == list(THRESHOLDS)


def test_the_report_is_json_that_every_parser_reads(written):
    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    text = (written / "report.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=refuse)


def test_scoring_and_reporting_need_no_plotting_and_no_scikit_learn():
    code = (
        "import sys, chestxray.evaluation.comparison, chestxray.evaluation.heldout\n"
        "print([m for m in ('matplotlib', 'jinja2', 'sklearn', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_number_of_threads_changes_nothing_but_the_time(predictor, dataset):
    samples = read_dataset(dataset, LABELS)
    told: list[int] = []
    alone = score_samples(predictor, samples, threads=1, on_scored=told.append)
    together = score_samples(predictor, samples, threads=4)
    assert told == list(range(1, len(samples) + 1))
    assert [s.sample for s in alone] == [s.sample for s in together] == samples
    assert [s.prediction and s.prediction.logit for s in alone] == [
        s.prediction and s.prediction.logit for s in together
    ]


def test_the_size_of_a_file_is_kept_where_it_could_be_decoded(predictor, tmp_path):
    wide = images.png(np.zeros((40, 90), np.uint8))
    folder = write_files(tmp_path, {"NORMAL/wide.png": wide, "PNEUMONIA/torn.png": wide[:40]})
    scored = score_samples(predictor, read_dataset(folder, LABELS), threads=1)
    assert [s.size_px for s in scored] == [(90, 40), None]


def test_scoring_changes_no_file_of_the_data_set(predictor, dataset):
    def digests() -> dict[str, str]:
        return {
            str(f): hashlib.sha256(f.read_bytes()).hexdigest()
            for f in sorted(dataset.rglob("*"))
            if f.is_file()
        }

    before = digests()
    score_samples(predictor, read_dataset(dataset, LABELS), threads=2)
    assert digests() == before


def test_no_figures_without_readable_radiographs_of_both_truths(tmp_path, predictor):
    normal = images.png(radiograph_levels(0, opacity=False))
    folder = write_files(tmp_path, {"NORMAL/n.png": normal, "PNEUMONIA/p.png": b"nothing"})
    scored = score_samples(predictor, read_dataset(folder, LABELS), threads=1)
    with pytest.raises(EmptyDatasetError, match="both truths"):
        report_of(predictor, scored, "tiny", "all")
