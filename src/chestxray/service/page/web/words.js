// Numbers and states in words, the same everywhere on the page.

import { refusalTitle } from "./refusals.js";

export const pointName = (name) => name.replaceAll("_", " ");

/** Never 0 and never 1: no model is that sure. */
export function probability(p) {
  if (p >= 0.9995) {
    return "> 0.999";
  }
  return p < 0.0005 ? "< 0.001" : p.toFixed(3);
}

export const threshold = (value) => value.toFixed(3);

export const share = (value) => (value === null ? "–" : value.toFixed(3));

/** A figure's interval in brackets, or nothing where it has none. */
export function interval({ ci_low: low, ci_high: high }) {
  return low == null ? "" : `(${share(low)}–${share(high)})`;
}

export const figure = (of) => `${share(of.value)} ${interval(of)}`.trim();

/** Of an answer, for style sheets, which know no labels. */
export const finding = (positive) => (positive ? "positive" : "negative");

/** `[[1, 5], [18, 90]]` in words. */
export function ages(ranges) {
  return `${ranges.map(([from, to]) => `${from} to ${to}`).join(" or ")} years`;
}

/** A coded meaning, which begins with a capital, within a sentence; an acronym stays one. */
export const meaning = (text) =>
  /^.[a-z]/.test(text) ? text.charAt(0).toLowerCase() + text.slice(1) : text;

/** `a-file-1.jpeg` as the name of what it shows: `A file 1`. */
export function exampleName(file) {
  const name = file.replace(/\.[^.]+$/, "").replaceAll("-", " ");
  return name.charAt(0).toUpperCase() + name.slice(1);
}

/** One line for what has become of a reading. */
export function state({ state, prediction, problem, judgement }) {
  if (state === "answered") {
    const { label, uncertain } = judgement.of(prediction);
    return [
      `${label} ${probability(prediction.probability)}`,
      ...(uncertain ? ["uncertain"] : []),
      ...(judgement.replaced ? ["earlier bundle"] : []),
    ].join(", ");
  }
  if (state === "failed") {
    return `not judged: ${refusalTitle(problem).toLowerCase()}`;
  }
  return { waiting: "waiting", reading: "being read" }[state];
}

/** The service's words as a sentence. */
export function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}

// It stands on nearly every answer, and what is always shouted is not heard.
const OF_UNKNOWN_AGE = /^the (patient's age is not known|model does not say of which age)/;

/** `{warnings, remarks}`, sentences: what an answer warns of, and what it remarks on the age. */
export function warnings(prediction) {
  const isRemark = (text) => OF_UNKNOWN_AGE.test(text);
  return {
    warnings: prediction.warnings.filter((text) => !isRemark(text)).map(sentence),
    remarks: prediction.warnings.filter(isRemark).map(sentence),
  };
}

export function duration(seconds) {
  return seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`;
}

/** Local time as on the wall: `2026-11-24 15:30`. */
export function now(date = new Date()) {
  const two = (n) => String(n).padStart(2, "0");
  const day = [date.getFullYear(), two(date.getMonth() + 1), two(date.getDate())].join("-");
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}`;
}

export const percent = (value) => `${Number((100 * value).toPrecision(3))} %`;
