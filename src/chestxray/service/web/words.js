// Numbers and states in words, the same everywhere on the page.

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

/** One line for what has become of a reading. */
export function state(reading, judgement) {
  if (reading.state === "answered") {
    const { label, uncertain } = judgement.of(reading.prediction);
    return `${label} ${probability(reading.prediction.probability)}${uncertain ? ", uncertain" : ""}`;
  }
  if (reading.state === "failed") {
    return `not judged: ${reading.problem.title.toLowerCase()}`;
  }
  return { waiting: "waiting", reading: "being read" }[reading.state];
}

/** The service's words as a sentence. */
export function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
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
