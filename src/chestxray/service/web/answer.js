// The answer to one reading: verdict, probability among the operating points, what they are worth.
//
// Does not: decide (judgement.js does), or show the picture (viewer.js does).

import { atPrevalence, predictiveValues } from "./decision.js";
import { byId, element, row } from "./elements.js";
import * as words from "./words.js";

const NOT_A_CHEST = "not_a_chest_radiograph";

/** Whether the same file may fare better another time: too slow, the server's fault, the disk's. */
const mayPass = ({ status }) => status === 0 || status === 408 || status >= 500;

export class Answer {
  /** `onPoint(name)` hears of another operating point. */
  constructor(judgement, onPoint) {
    this.judgement = judgement;
    this.reading = null;
    this.prevalence = 0.1;
    this.#makePoints(onPoint);
    this.#listenToPrevalence();
    this.showPoint();
  }

  show(reading) {
    this.reading = reading;
    const answered = reading?.state === "answered";
    const failed = reading?.state === "failed";
    byId("no-answer").hidden = answered || failed;
    byId("no-answer").textContent = reading
      ? `${reading.path}: ${words.state(reading, this.judgement)}.`
      : "No radiograph yet.";
    byId("verdict").hidden = !answered;
    byId("judging").hidden = !answered;
    byId("refusal").hidden = !failed;
    if (answered) {
      this.#showVerdict();
      this.#showPredictive();
    } else if (failed) {
      this.#showRefusal();
    }
  }

  /** Show what the chosen operating point makes of it. */
  showPoint() {
    const { judgement } = this;
    for (const input of byId("points").querySelectorAll("input")) {
      input.checked = input.value === judgement.point;
    }
    const rows = judgement.measured.map(({ where, size, sensitivity, specificity }) =>
      row(
        element("span", {}, where, element("small", {}, size)),
        figure(sensitivity),
        figure(specificity),
      ),
    );
    const none = row("nothing: the bundle has no figures for it", "–", "–");
    byId("performance").tBodies[0].replaceChildren(...(rows.length > 0 ? rows : [none]));
    this.#showBar();
    this.show(this.reading);
  }

  #showVerdict() {
    const { prediction } = this.reading;
    const { label, uncertain } = this.judgement.of(prediction);
    byId("label").textContent = label;
    byId("verdict").dataset.label = label;
    byId("uncertain").hidden = !uncertain;
    byId("probability").textContent = words.probability(prediction.probability);
    byId("bar-probability").style.setProperty("--at", prediction.probability);
    const points = Object.entries(this.judgement.points)
      .map(([name, { threshold }]) => `${words.pointName(name)} ${words.threshold(threshold)}`)
      .join(", ");
    byId("bar").setAttribute(
      "aria-label",
      `Probability ${words.probability(prediction.probability)} among the thresholds ${points}`,
    );
    const [low, high] = this.judgement.zone.map(words.threshold);
    byId("zone").textContent = uncertain
      ? `Uncertain: between ${low} and ${high}, disturbing the picture alone may turn the label.`
      : `Answers between ${low} and ${high} are called uncertain.`;
    byId("warnings").replaceChildren(...prediction.warnings.map((text) => element("li", {}, words.sentence(text))));
    byId("input-check").textContent =
      `Likeness to a frontal chest radiograph: ${prediction.input_check.score.toFixed(2)}; ` +
      `accepted from ${this.judgement.metadata.input_check.threshold.toFixed(2)}.`;
  }

  #showBar() {
    const { points, point, zone } = this.judgement;
    const [low, high] = zone;
    byId("bar-zone").style.setProperty("--from", low);
    byId("bar-zone").style.setProperty("--to", high);
    const marks = Object.entries(points).map(([name, { threshold }], i) => {
      const mark = element("span", {}, element("span", {}, words.pointName(name)));
      mark.style.setProperty("--at", threshold);
      mark.style.setProperty("--row", i);
      mark.dataset.side = threshold > 0.5 ? "left" : "right";
      mark.dataset.chosen = name === point;
      return mark;
    });
    byId("bar").style.setProperty("--rows", marks.length);
    byId("bar-points").replaceChildren(...marks);
  }

  #showPredictive() {
    const { judgement, prevalence } = this;
    const { calibration } = judgement.metadata;
    const { probability } = this.reading.prediction;
    const values = judgement.measured.map(({ where, sensitivity, specificity }) => {
      const at = (end) => predictiveValues(sensitivity[end], specificity[end], prevalence);
      const [value, low, high] = ["value", "ci_low", "ci_high"].map(at);
      const interval = (of) => figure({ value: value[of], ci_low: low[of], ci_high: high[of] });
      return { where, value, ppv: interval("ppv"), npv: interval("npv") };
    });
    byId("predictive").tBodies[0].replaceChildren(
      ...values.map(({ where, ppv, npv }) => row(where, ppv, npv)),
    );
    const { label } = judgement.of(this.reading.prediction);
    const right = values
      .map(({ where, value }) => [where, label === "PNEUMONIA" ? value.ppv : value.npv])
      .filter(([, share]) => share !== null)
      .map(([where, share]) => `${Math.round(100 * share)} (${where})`);
    const worth =
      right.length > 0 ? `Of 100 answers ${label}, right would be: ${right.join("; ")}. ` : "";
    const here = atPrevalence(probability, calibration.prevalence, prevalence);
    byId("predictive-sentence").textContent =
      `${worth}The probability was calibrated where ${(100 * calibration.prevalence).toFixed(0)} ` +
      `of 100 had pneumonia; where ${words.percent(prevalence)} have, the same evidence would ` +
      `mean ${words.probability(here)}.`;
  }

  #showRefusal() {
    const { problem, inputCheck } = this.reading;
    const { threshold, rule } = this.judgement.metadata.input_check;
    const refused = problem.code === NOT_A_CHEST;
    byId("refusal-title").textContent = problem.title;
    byId("refusal-detail").textContent = words.sentence(problem.detail);
    byId("refusal-check").textContent = refused
      ? `Likeness ${problem.input_check.score.toFixed(2)}; accepted from ${threshold.toFixed(2)}. ` +
        `This rule ${rule}, so it refuses some real ones too. The model has never seen anything ` +
        "like what it refuses, and its answer to it means nothing."
      : "";
    byId("read-anyway").hidden = !refused || inputCheck === "warn";
    byId("try-again").hidden = !mayPass(problem);
    byId("refusal-code").textContent = [
      `Code ${problem.code}`,
      ...(problem.request_id ? [`request ${problem.request_id}`] : []),
    ].join(", ");
  }

  #makePoints(onPoint) {
    const labels = Object.entries(this.judgement.points).map(([name, { threshold, rule }]) => {
      const input = element("input", { type: "radio", name: "point", value: name });
      input.addEventListener("change", () => onPoint(name));
      return element(
        "label",
        { title: rule },
        input,
        element("span", {}, words.pointName(name)),
        element("span", { className: "quiet" }, `from ${words.threshold(threshold)}`),
      );
    });
    byId("points").append(...labels);
  }

  #listenToPrevalence() {
    const [number, slider] = [byId("prevalence"), byId("prevalence-slider")];
    for (const [input, other] of [
      [number, slider],
      [slider, number],
    ]) {
      input.addEventListener("input", () => {
        if (input.checkValidity()) {
          other.value = input.value;
          this.prevalence = Number(input.value) / 100;
          this.#showPredictive();
        }
      });
    }
  }
}

/** A figure with its interval on a line of its own, for a narrow table. */
function figure(of) {
  return element("span", {}, words.share(of.value), element("small", {}, words.interval(of)));
}
