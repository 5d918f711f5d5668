// The model card: what /metadata says of a bundle that answers, as tables.
//
// Does not: say anything of the bundle that its manifest does not say.

import { element, row } from "./elements.js";
import { sizeOf, whereOf } from "./judgement.js";
import * as words from "./words.js";

const FIGURES = {
  auroc: "AUROC",
  accuracy: "accuracy",
  sensitivity: "sensitivity",
  specificity: "specificity",
  precision: "precision",
  brier: "Brier score",
  ece: "ECE",
};

/** The card's nodes. */
export function modelCard(metadata) {
  return [
    element(
      "p",
      {},
      "A research model, not a medical device: do not decide about a patient by it. It judges " +
        "radiographs like those it was trained on and no others; elsewhere, and in other " +
        "patients, it is worse.",
    ),
    element("h3", {}, "Identity"),
    table("Identity", [], identity(metadata)),
    element("h3", {}, "What it knows"),
    table("What it knows", [], known(metadata)),
    element("h3", {}, "Training"),
    table("Training", [], training(metadata)),
    element("h3", {}, "Operating points"),
    table(
      "Operating points",
      ["point", "threshold", "rule"],
      Object.entries(metadata.operating_points).map(([name, { threshold, rule }]) => [
        words.pointName(name),
        words.threshold(threshold),
        rule,
      ]),
    ),
    ...metadata.metrics.flatMap(measured),
    element("p", {}, "In brackets 95 % intervals, bootstrapped by subject."),
  ];
}

function identity(of) {
  return [
    ["name", of.model === of.name ? of.name : `${of.model}, in its manifest ${of.name}`],
    ["bundle, SHA-256", of.bundle_sha256],
    ["made", of.created],
    ["precision", of.precision],
    ["input", `${of.preprocessing.side_px} × ${of.preprocessing.side_px} px`],
    ["software", `chestxray ${of.version}`],
  ];
}

function known({ finding: { negative, positive, code }, population: of }) {
  return [
    ["finding", `${code.meaning} (${code.scheme} ${code.value})`],
    ["labels", `${positive} and ${negative}`],
    ["ages", of.age_years ? words.ages(of.age_years) : "it does not say which"],
    ["modalities", of.modalities.join(", ")],
    ["body parts", of.body_parts.join(", ")],
    ["views", of.views.join(", ")],
  ];
}

function training({ training: of, calibration, uncertainty, input_check: check, evidence }) {
  const subjects = (n, from) => (n === undefined ? undefined : `${n} radiographs of ${from} subjects`);
  return [
    ["network", of.config?.network],
    ["trained on", subjects(of.n_train, of.n_subjects_train)],
    ["held out", subjects(of.n_heldout, of.n_subjects_heldout)],
    ["seed", of.config?.seed ?? of.seed],
    ["commit", of.commit],
    [
      "calibration",
      `on ${calibration.fitted_on}; n = ${calibration.n}, prevalence ` +
        `${words.percent(calibration.prevalence)}; temperature ` +
        `${calibration.temperature.toFixed(2)}, bias ${calibration.bias.toFixed(2)}`,
    ],
    ["uncertain", `within ${uncertainty.margin.toFixed(2)} logits of the threshold: ${uncertainty.rule}`],
    ["input check", `accepts from ${check.threshold}; ${check.rule}`],
    ["heatmap", heatmap(evidence)],
  ].filter(([, value]) => value !== undefined);
}

function heatmap({ validated, validation: of }) {
  const figures = of
    ? `; on ${of.dataset}, n = ${of.n}: its peak lies in a reader's box in ` +
      `${words.percent(of.pointing)}, the best fixed point in ` +
      `${words.percent(of.best_fixed_point)}; AUPRC ${words.share(of.auprc)}, by chance ` +
      words.share(of.chance)
    : "";
  return `${validated ? "validated" : "not validated"}${figures}`;
}

function measured(of) {
  const points = Object.entries(of.operating_points ?? {});
  if (points.length === 0) {
    return [];
  }
  const title = `${whereOf(of)} (${sizeOf(of)})`;
  const refused = `${of.n_refused ?? 0} of them the input check would refuse; all are counted.`;
  const rows = Object.entries(FIGURES).map(([figure, name]) => [
    name,
    ...points.map(([, at]) => (at[figure] ? words.figure(at[figure]) : "–")),
  ]);
  const columns = ["figure", ...points.map(([name]) => words.pointName(name))];
  return [element("h3", {}, title), table(title, columns, rows), element("p", {}, refused)];
}

function table(caption, columns, rows) {
  const head = element("tr", {}, ...columns.map((c) => element("th", { scope: "col" }, c)));
  const made = element(
    "table",
    {},
    element("caption", { className: "unseen" }, caption),
    ...(columns.length > 0 ? [element("thead", {}, head)] : []),
    element("tbody", {}, ...rows.map((cells) => row(...cells.map(String)))),
  );
  // Wide on a phone: it scrolls by itself, by keyboard too.
  const scroll = element("div", { className: "scroll", tabIndex: 0 }, made);
  scroll.setAttribute("role", "region");
  scroll.setAttribute("aria-label", caption);
  return scroll;
}
