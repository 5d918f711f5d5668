"""What an answer means: the operating points, what they are worth, and what can be taken away."""

import csv
import io
import json
import math
import re
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from chestxray.inference import Population
from chestxray.inference.probability import logit_of, sigmoid
from factories.browser import (
    EXAMPLES,
    bands_png,
    canvas_pixels,
    enlarged_jpeg,
    noise_png,
    probability_text,
    read,
    read_example,
    show_heatmap,
    until_shown,
)
from factories.requests import predict, predict_batch

Figure = dict[str, float]

PROBABILITIES = [0.001, 0.05, 0.166, 0.3, 0.5, 0.7, 0.7353307269038878, 0.9, 0.9543, 0.999]
PREVALENCES = [0.001, 0.01, 0.1, 0.5, 0.9, 0.999]
BAD_PREVALENCES = ["", "0", "100", "-5", "1e9"]

HOSTILE_NAME = '=HYPERLINK("a,b").jpeg'


@pytest.fixture
def metadata(client: httpx.Client) -> dict[str, Any]:
    return client.get("/metadata").json()


def choose(page: Page, point: str) -> None:
    page.locator(f'#points input[value="{point}"]').check()


def edges(locator: Locator) -> tuple[float, float]:
    """Left and right, px."""
    rectangle = locator.evaluate("(element) => element.getBoundingClientRect().toJSON()")
    return rectangle["left"], rectangle["right"]


def figure_text(figure: Figure) -> str:
    """As a table has it, without the space between value and interval."""
    if figure.get("ci_low") is None:
        return _thousandths(figure["value"])
    low, high = (_thousandths(figure[end]) for end in ("ci_low", "ci_high"))
    return f"{_thousandths(figure['value'])}({low}–{high})"


def _thousandths(value: float) -> str:
    """As JavaScript rounds: what lies just between two goes up."""
    return str(Decimal(value).quantize(Decimal("0.001"), ROUND_HALF_UP))


def measured_at(metadata: dict[str, Any], point: str) -> list[tuple[dict[str, Any], Any]]:
    """Where the point was measured, and its figures there."""
    metrics = [of for of in metadata["metrics"] if point in of.get("operating_points", {})]
    return [(of, of["operating_points"][point]) for of in metrics]


def table(page: Page, selector: str) -> list[list[str]]:
    """The cells of a table's body, without the spaces that only the layout makes."""
    cells = page.locator(f"{selector} tbody tr").evaluate_all(
        "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    )
    return [[re.sub(r"\s+(?=\()", "", text) for text in row] for row in cells]


# --- the bar


def test_the_bar_marks_thresholds_zone_and_probability_where_they_are(
    page: Page, client: httpx.Client, metadata: dict[str, Any]
) -> None:
    read_example(page, "normal-2.jpeg")
    probability = predict(client, EXAMPLES["normal-2.jpeg"]).json()["probability"]
    margin = metadata["uncertainty"]["margin"]
    points = metadata["operating_points"]
    for chosen in points:
        choose(page, chosen)
        left, right = edges(page.locator("#bar"))

        def place(share: float, left: float = left, right: float = right) -> float:
            return left + share * (right - left)

        marks = page.locator("#bar-points > span")
        assert marks.count() == len(points)
        for i, (name, point) in enumerate(points.items()):
            mark = marks.nth(i)
            expect(mark).to_have_text(name.replace("_", " "))
            expect(mark).to_have_attribute("data-chosen", str(name == chosen).lower())
            assert abs(edges(mark)[0] - place(point["threshold"])) <= 1
        at = float(logit_of(points[chosen]["threshold"]))
        zone = edges(page.locator("#bar-zone"))
        assert abs(zone[0] - place(float(sigmoid(at - margin)))) <= 1
        assert abs(zone[1] - place(float(sigmoid(at + margin)))) <= 1
        assert abs(sum(edges(page.locator("#bar-probability"))) / 2 - place(probability)) <= 1
        said = page.locator("#zone").inner_text()
        for end in (at - margin, at + margin):
            assert f"{float(sigmoid(end)):.3f}" in said


def test_the_names_of_the_marks_stay_within_the_answer(page: Page) -> None:
    read_example(page)
    for width in (390, 1440, 3840):
        page.set_viewport_size({"width": width, "height": 900})
        left, right = edges(page.locator("#answer"))
        for mark in page.locator("#bar-points > span > span").all():
            assert left <= edges(mark)[0]
            assert edges(mark)[1] <= right


# --- what the points are worth


def test_each_point_shows_what_it_did_where_it_was_measured(
    page: Page, metadata: dict[str, Any]
) -> None:
    read_example(page)
    for point in metadata["operating_points"]:
        choose(page, point)
        assert table(page, "#performance") == [
            [
                f"{of['dataset']}, {of['split']}n = {of['n']}, {of['n_subjects']} subjects",
                figure_text(figures["sensitivity"]),
                figure_text(figures["specificity"]),
            ]
            for of, figures in measured_at(metadata, point)
        ]


def bayes(sensitivity: float, specificity: float, prevalence: float) -> tuple[float, float]:
    """PPV and NPV, counted on a million people."""
    ill, well = 1e6 * prevalence, 1e6 * (1 - prevalence)
    positive = ill * sensitivity, well * (1 - specificity)
    negative = well * specificity, ill * (1 - sensitivity)
    return tuple(right / (right + wrong) for right, wrong in (positive, negative))


@pytest.mark.parametrize("prevalence", PREVALENCES)
def test_predictive_values_are_those_of_bayes_at_the_given_prevalence(
    page: Page, metadata: dict[str, Any], prevalence: float
) -> None:
    read_example(page)
    for point in metadata["operating_points"]:
        choose(page, point)
        page.locator("#prevalence").fill(f"{100 * prevalence:g}")
        expected = []
        for of, figures in measured_at(metadata, point):
            ends = [
                bayes(figures["sensitivity"][end], figures["specificity"][end], prevalence)
                for end in ("value", "ci_low", "ci_high")
            ]
            cells = [
                figure_text({"value": value, "ci_low": low, "ci_high": high})
                for value, low, high in zip(*ends, strict=True)
            ]
            expected.append([f"{of['dataset']}, {of['split']}", *cells])
        assert table(page, "#predictive") == expected
    expect(page.locator("#prevalence-slider")).to_have_value(f"{100 * prevalence:g}")


def test_the_sentence_says_what_the_probability_means_at_the_prevalence(
    page: Page, client: httpx.Client, metadata: dict[str, Any]
) -> None:
    read_example(page, "normal-2.jpeg")
    probability = predict(client, EXAMPLES["normal-2.jpeg"]).json()["probability"]
    page.locator("#prevalence-slider").fill("3")
    expect(page.locator("#prevalence")).to_have_value("3")
    there = metadata["calibration"]["prevalence"]
    odds = probability / (1 - probability) / (there / (1 - there)) * (0.03 / 0.97)
    sentence = page.locator("#predictive-sentence")
    expect(sentence).to_contain_text(f"{probability_text(odds / (1 + odds))}.")
    expect(sentence).to_contain_text("3 %")
    expect(sentence).to_contain_text(f"{100 * there:.0f} of 100")


@pytest.mark.parametrize("text", BAD_PREVALENCES)
def test_a_prevalence_that_is_none_leaves_the_last_values(page: Page, text: str) -> None:
    read_example(page)
    page.locator("#prevalence").fill("20")
    before = table(page, "#predictive")
    sentence = page.locator("#predictive-sentence").inner_text()
    page.locator("#prevalence").fill(text)
    assert table(page, "#predictive") == before
    expect(page.locator("#predictive-sentence")).to_have_text(sentence)
    expect(page.locator("#prevalence:invalid")).to_have_count(1)


# --- the functions behind them


def test_the_page_decides_as_the_predictor_does(page: Page, metadata: dict[str, Any]) -> None:
    margin = metadata["uncertainty"]["margin"]
    thresholds = [point["threshold"] for point in metadata["operating_points"].values()]
    table = [[p, threshold] for p in PROBABILITIES for threshold in thresholds]
    decided = page.evaluate(
        """async ({ table, margin }) => {
            const { decide, uncertainZone } = await import("/page/decision.js");
            return table.map(([p, t]) => [decide(p, t, margin), uncertainZone(t, margin)]);
        }""",
        {"table": table, "margin": margin},
    )
    for (p, threshold), (decision, zone) in zip(table, decided, strict=True):
        distance = abs(float(logit_of(p)) - float(logit_of(threshold)))
        assert decision == {
            "positive": p >= threshold,
            "uncertain": distance < margin,
        }
        at = float(logit_of(threshold))
        assert zone == pytest.approx([float(sigmoid(at - margin)), float(sigmoid(at + margin))])


def test_the_pages_probabilities_are_the_predictors(page: Page) -> None:
    logits = np.linspace(-40, 36, 153)
    found = page.evaluate(
        """async (logits) => {
            const { logit, sigmoid } = await import("/page/decision.js");
            return logits.map((x) => [sigmoid(x), logit(sigmoid(x))]);
        }""",
        logits.tolist(),
    )
    probabilities, back = np.array(found).T
    np.testing.assert_allclose(probabilities, sigmoid(logits), rtol=1e-12)
    near = np.abs(logits) < 20
    np.testing.assert_allclose(back[near], logits[near], atol=1e-6)


def test_the_pages_predictive_values_are_those_of_bayes(page: Page) -> None:
    shares = [0.0, 0.03, 0.5, 0.93, 1.0]
    table = [[a, b, c] for a in shares for b in shares for c in PREVALENCES]
    found = page.evaluate(
        """async (table) => {
            const { predictiveValues } = await import("/page/decision.js");
            return table.map((of) => predictiveValues(...of));
        }""",
        table,
    )
    for (sensitivity, specificity, prevalence), values in zip(table, found, strict=True):
        positive = sensitivity * prevalence + (1 - specificity) * (1 - prevalence)
        negative = specificity * (1 - prevalence) + (1 - sensitivity) * prevalence
        ppv = sensitivity * prevalence / positive if positive else None
        npv = specificity * (1 - prevalence) / negative if negative else None
        assert values == {
            "ppv": ppv if ppv is None else pytest.approx(ppv),
            "npv": npv if npv is None else pytest.approx(npv),
        }


def test_a_probability_moved_to_another_prevalence_is_bayes_and_comes_back(page: Page) -> None:
    table = [[p, a, b] for p in PROBABILITIES for a in PREVALENCES for b in PREVALENCES]
    found = page.evaluate(
        """async (table) => {
            const { atPrevalence } = await import("/page/decision.js");
            return table.map(([p, from, to]) => {
                const there = atPrevalence(p, from, to);
                return [there, atPrevalence(there, to, from)];
            });
        }""",
        table,
    )
    for (p, a, b), (there, back) in zip(table, found, strict=True):
        ratio = p / (1 - p) * (1 - a) / a
        odds = ratio * b / (1 - b)
        assert there == pytest.approx(odds / (1 + odds))
        assert math.isclose(back, p, rel_tol=1e-6)


# --- the model card


def test_the_model_card_has_every_figure_of_the_metadata(
    page: Page, metadata: dict[str, Any]
) -> None:
    page.locator("#open-model-card").click()
    card = page.locator("#model-card-content")
    expect(card).to_be_visible()
    text = re.sub(r"\s+(?=\()", "", card.inner_text())
    names = {"auroc": "AUROC", "brier": "Brier score", "ece": "ECE"}
    n_figures = 0
    for of in metadata["metrics"]:
        title = f"{of['dataset']}, {of['split']}"
        rows = (
            card.get_by_role("table", name=title)
            .locator("tbody tr")
            .evaluate_all(
                "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
            )
        )
        cells = {row[0]: [re.sub(r"\s+(?=\()", "", cell) for cell in row[1:]] for row in rows}
        for i, figures in enumerate(of["operating_points"].values()):
            for name, figure in figures.items():
                if isinstance(figure, dict):
                    assert cells[names.get(name, name)][i] == figure_text(figure)
                    n_figures += 1
        for n in (of["n"], of["n_subjects"], of["n_refused"]):
            assert str(n) in text
    assert n_figures >= 7 * len(metadata["operating_points"])
    population = metadata["population"]
    assert Population.model_validate(population).ages in text
    assert all(", ".join(population[of]) in text for of in ("modalities", "body_parts", "views"))
    assert metadata["finding"]["code"]["value"] in text
    for point in metadata["operating_points"].values():
        assert f"{point['threshold']:.3f}" in text
        assert point["rule"] in text
    facts = [metadata[key] for key in ("name", "bundle_sha256", "precision", "version")]
    assert all(fact in text for fact in facts)
    assert metadata["training"]["commit"] in text


def test_the_answer_names_the_bundle(page: Page, metadata: dict[str, Any]) -> None:
    read_example(page)
    expect(page.locator("#identity")).to_contain_text(metadata["name"])
    expect(page.locator("#identity")).to_contain_text(metadata["bundle_sha256"][:12])


# --- what can be taken away


def saved(page: Page, selector: str) -> tuple[str, bytes]:
    """The suggested name and the content of the file that a button saves."""
    with page.expect_download() as download:
        page.locator(selector).click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


@pytest.fixture
def listed(page: Page) -> list[tuple[str, bytes]]:
    """The files that ``page`` has read."""
    files = [
        (HOSTILE_NAME, EXAMPLES["pneumonia-1.jpeg"]),
        ("normal.jpeg", EXAMPLES["normal-2.jpeg"]),
        ("noise, grey.png", noise_png()),
        ("half.jpeg", EXAMPLES["normal-1.jpeg"][:3000]),
    ]
    read(page, *files)
    return files


def test_the_csv_is_what_the_service_answers_at_each_operating_point(
    page: Page, client: httpx.Client, metadata: dict[str, Any], listed: list[tuple[str, bytes]]
) -> None:
    for point, facts in metadata["operating_points"].items():
        choose(page, point)
        name, content = saved(page, "#save-csv")
        assert re.fullmatch(r"chestxray-[-\d]+\.csv", name)
        rows = list(csv.DictReader(io.StringIO(content.decode(), newline=""), strict=True))
        results = predict_batch(client, listed, operating_point=point).json()["results"]
        assert [row["path"] for row in rows] == [f"'{HOSTILE_NAME}", *(n for n, _ in listed[1:])]
        for row, result in zip(rows, results, strict=True):
            assert row["operating_point"] == point
            assert float(row["threshold"]) == facts["threshold"]
            assert row["model"] == metadata["model"]
            assert row["bundle_sha256"] == metadata["bundle_sha256"]
            if "error" in result:
                assert row["error_code"] == result["error"]["code"]
                assert row["error"] == result["error"]["detail"]
                assert row["label"] == row["probability"] == row["uncertain"] == ""
                check = result["error"].get("input_check")
            else:
                answer = result["prediction"]
                assert row["label"] == answer["label"]
                assert float(row["probability"]) == answer["probability"]
                assert row["uncertain"] == str(answer["uncertain"]).lower()
                assert row["warnings"] == "; ".join(answer["warnings"])
                check = answer["input_check"]
            if check is not None:
                assert float(row["input_check_score"]) == check["score"]
                assert row["input_check_accepted"] == str(check["accepted"]).lower()


def test_the_json_is_what_the_service_answers_without_the_pictures(
    page: Page, client: httpx.Client, metadata: dict[str, Any], listed: list[tuple[str, bytes]]
) -> None:
    for point in metadata["operating_points"]:
        choose(page, point)
        name, content = saved(page, "#save-json")
        assert re.fullmatch(r"chestxray-[-\d]+\.json", name)
        expected = predict_batch(client, listed, operating_point=point, evidence=True).json()
        for result, (filename, _) in zip(expected["results"], listed, strict=True):
            result["filename"] = (
                filename  # a form cannot hold every name; the page need not send it
            )
        found = json.loads(content)
        for result in (*expected["results"], *found["results"]):
            if "error" in result:
                del result["error"]["request_id"]
            else:
                result["prediction"].pop("heatmap", None)
                result["prediction"].pop("preview", None)
        assert found == expected


@pytest.mark.parametrize("side_px", [224, 1500])
def test_a_picture_can_be_saved_with_and_without_its_heatmap(page: Page, side_px: int) -> None:
    data = enlarged_jpeg(EXAMPLES["pneumonia-1.jpeg"], side_px, side_px)
    read(page, ("a.b.jpeg", data))
    until_shown(page)
    name, plain = saved(page, "#save-png")
    assert name == "a.b-reading.png"
    show_heatmap(page)
    _, overlaid = saved(page, "#save-png")
    pictures = []
    for content in (plain, overlaid):
        with Image.open(io.BytesIO(content)) as image:
            assert image.format == "PNG"
            image.load()
            pictures.append(np.asarray(image.convert("RGB"), int))
    longest = max(1024, side_px)
    assert pictures[0].shape[1] == longest
    assert pictures[1].shape[1] > longest  # beside it stands the colour bar
    top_of_both = [picture[:longest, :longest] for picture in pictures]
    assert np.ptp(top_of_both[0], axis=2).max() == 0  # grey
    assert np.ptp(top_of_both[1], axis=2).max() > 50
    for picture in pictures:
        assert picture[longest:].max() > 200  # the caption


def test_the_saved_picture_is_the_whole_one_through_the_window_it_is_seen_through(
    page: Page,
) -> None:
    read(page, ("bands.png", bands_png(640, 400)))
    until_shown(page)
    page.locator("#invert").click()
    page.locator("#zoom-in").click()
    _, content = saved(page, "#save-png")
    with Image.open(io.BytesIO(content)) as image:
        grey = np.asarray(image.convert("L"))
    columns = [round((i + 0.5) * 1024 / 16) for i in range(16)]
    assert grey[320, columns].tolist() == [255 - 17 * i for i in range(16)]


# --- on paper


def pages_of(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page(?![A-Za-z])", pdf))


@pytest.mark.parametrize("name", ["normal-1.jpeg", "wide.jpeg", "tall.jpeg"])
def test_a_report_is_one_page(page: Page, name: str) -> None:
    example = EXAMPLES["normal-1.jpeg"]
    sizes = {"wide.jpeg": (1800, 1100), "tall.jpeg": (700, 1600)}
    read(page, (name, enlarged_jpeg(example, *sizes[name]) if name in sizes else example))
    until_shown(page)
    if page.locator("#heatmap").is_enabled():
        page.locator("#heatmap").click()
    for options in ({"format": "A4"}, {"prefer_css_page_size": True}):
        assert pages_of(page.pdf(**options)) == 1


def test_paper_shows_the_report_and_not_what_is_for_the_screen(page: Page) -> None:
    read_example(page)
    page.evaluate("() => window.dispatchEvent(new Event('beforeprint'))")
    page.emulate_media(media="print")
    for selector in ("#worklist", "#viewer", "header", "#tools", "#prevalence-slider"):
        expect(page.locator(selector)).to_be_hidden()
    assert page.locator("button:visible").count() == 0
    for selector in ("#report", "#label", "#probability", "#performance", "#predictive"):
        expect(page.locator(selector)).to_be_visible()
    report = page.locator("#report-file")
    expect(report).to_contain_text("pneumonia-1.jpeg")
    expect(report).to_contain_text("Not for diagnostic use")
    assert canvas_pixels(page, "#report-picture")[:, :, :3].max() > 200


def test_a_report_never_shows_another_radiograph_than_its_answer(page: Page) -> None:
    read(page, ("roe_jane.jpeg", EXAMPLES["normal-1.jpeg"]), ("text.png", b"This is no picture."))
    until_shown(page)
    page.pdf()
    expect(page.locator("#report-file")).to_contain_text("roe_jane.jpeg")
    page.locator("#readings button").nth(1).click()
    expect(page.locator("#refusal")).to_be_visible()
    page.pdf()
    expect(page.locator("#report-file")).not_to_contain_text("roe_jane.jpeg")


def test_after_clearing_the_list_paper_shows_nothing_of_what_was_on_it(page: Page) -> None:
    read(page, ("roe_jane.jpeg", EXAMPLES["normal-1.jpeg"]))
    until_shown(page)
    page.pdf()
    page.locator("#clear").click()
    page.pdf()
    assert "roe_jane" not in page.locator("body").inner_html()
