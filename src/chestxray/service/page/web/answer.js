// The answer to one reading: verdict, probability among the operating points, what they are worth.
//
// Does not: decide (judgement.js does), or show the picture (viewer.js does).

import { atPrevalence, predictiveValues } from "./decision.js";
import { byId, element, radio, row } from "./elements.js";
import { beforeOverruling, choiceAgainst, refusalTitle } from "./refusals.js";
import * as words from "./words.js";

/** Whether the same file may fare better another time: too slow, the server's fault, the disk's. */
const mayPass = ({ status, code }) =>
  status === 0 || status === 408 || status >= 500 || code === "bundle_changed";

export class Answer {
  judgement = null; // until the service has told of its models
  reading = null;

  /** `onPoint(name)` hears of another operating point. */
  constructor(onPoint) {
    this.onPoint = onPoint;
    this.#listenToPrevalence();
  }

  /** Show what another bundle's answers mean, in the words of its finding. */
  #judgeBy(judgement) {
    this.judgement = judgement;
    const { positive, negative, code } = judgement.finding;
    for (const [id, text] of Object.entries({
      "probability-of": positive,
      "prevalence-of": words.meaning(code.meaning),
      "ppv-of": positive,
      "npv-of": negative,
    })) {
      byId(id).textContent = text;
    }
    byId("prevalence").value = byId("prevalence-slider").value = 100 * judgement.chosen.prevalence;
    this.#makePoints();
    this.#showPoint();
  }

  /** `judgement` is by the reading's bundle, or the one at work; null before any is known. */
  show(reading, judgement) {
    if (judgement !== this.judgement) {
      this.#judgeBy(judgement);
    }
    this.reading = reading;
    const answered = reading?.state === "answered";
    const failed = reading?.state === "failed";
    byId("no-answer").hidden = answered || failed;
    byId("no-answer").textContent = reading
      ? `${reading.path}: ${words.state(reading)}.`
      : "No radiograph yet.";
    byId("verdict").hidden = !answered;
    byId("judging").hidden = !answered;
    byId("refusal").hidden = !failed;
    byId("replaced").hidden = !(reading?.finished && judgement.replaced);
    if (answered) {
      this.#showVerdict();
      this.#showPredictive();
    } else if (failed) {
      this.#showRefusal();
    }
  }

  /** Show what the chosen operating point makes of it. */
  showChosenPoint() {
    this.#showPoint();
    this.show(this.reading, this.judgement);
  }

  #showPoint() {
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
  }

  #showVerdict() {
    const { prediction } = this.reading;
    const { label, positive, uncertain } = this.judgement.of(prediction);
    byId("label").textContent = label;
    byId("verdict").dataset.finding = words.finding(positive);
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
    const { warnings, remarks } = words.warnings(prediction);
    byId("warnings").replaceChildren(...warnings.map((text) => element("li", {}, text)));
    byId("remarks").textContent = remarks.join(" ");
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
    const { judgement } = this;
    const { prevalence } = judgement.chosen;
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
    const { label, positive } = judgement.of(this.reading.prediction);
    const right = values
      .map(({ where, value }) => [where, positive ? value.ppv : value.npv])
      .filter(([, share]) => share !== null)
      .map(([where, share]) => `${Math.round(100 * share)} (${where})`);
    const worth =
      right.length > 0 ? `Of 100 answers ${label}, right would be: ${right.join("; ")}. ` : "";
    const here = atPrevalence(probability, calibration.prevalence, prevalence);
    byId("predictive-sentence").textContent =
      `${worth}The probability was calibrated where ${(100 * calibration.prevalence).toFixed(0)} ` +
      `of 100 had ${words.meaning(judgement.finding.code.meaning)}; where ${words.percent(prevalence)} have, the same evidence would ` +
      `mean ${words.probability(here)}.`;
  }

  #showRefusal() {
    const { problem } = this.reading;
    byId("refusal-title").textContent = refusalTitle(problem);
    byId("refusal-detail").textContent = words.sentence(problem.detail);
    byId("refusal-check").textContent = beforeOverruling(problem, this.judgement.metadata);
    byId("read-anyway").hidden = choiceAgainst(problem) === undefined;
    byId("try-again").hidden = !mayPass(problem);
    byId("refusal-code").textContent = [
      `Code ${problem.code}`,
      ...(problem.request_id ? [`request ${problem.request_id}`] : []),
    ].join(", ");
  }

  #makePoints() {
    const labels = Object.entries(this.judgement.points).map(([name, { threshold, rule }]) => {
      const from = `from ${words.threshold(threshold)}`;
      const label = radio("point", name, words.pointName(name), from, this.onPoint);
      return Object.assign(label, { title: rule });
    });
    byId("point-choices").replaceChildren(...labels);
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
          this.judgement.chosen.prevalence = Number(input.value) / 100;
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
