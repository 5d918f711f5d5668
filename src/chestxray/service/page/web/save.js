// What the reader takes away: the list as CSV and JSON, a picture as PNG.
//
// Does not: send anything anywhere; a file is made in the browser and saved from there.

import { element } from "./elements.js";
import * as words from "./words.js";

const COLUMNS = [
  "path",
  "label",
  "probability",
  "threshold",
  "operating_point",
  "uncertain",
  "input_check_accepted",
  "input_check_score",
  "warnings",
  "error_code",
  "error",
  "model",
  "bundle_sha256",
];

/** One row for each finished reading (RFC 4180), at the chosen operating point. */
export function csvOf(readings) {
  const rows = readings
    .filter((reading) => reading.finished)
    .map((reading) => {
      const cells = cellsOf(reading);
      return COLUMNS.map((column) => cells[column] ?? "");
    });
  return [COLUMNS, ...rows].map((cells) => cells.map(csvCell).join(",") + "\r\n").join("");
}

/** As /predict_batch answers, at the chosen operating point, without the pictures. */
export function jsonOf(readings) {
  const results = readings
    .filter((reading) => reading.finished)
    .map((reading) => {
      if (reading.state === "failed") {
        return { filename: reading.path, error: reading.problem };
      }
      const { judgement } = reading;
      const { heatmap, preview, ...prediction } = reading.prediction;
      return {
        filename: reading.path,
        prediction: {
          ...prediction,
          ...decided(prediction, judgement),
          threshold: judgement.threshold,
          operating_point: judgement.point,
        },
      };
    });
  const succeeded = results.filter(({ prediction }) => prediction).length;
  return JSON.stringify({ results, succeeded, failed: results.length - succeeded }, null, 2) + "\n";
}

export function saveText(text, type, name) {
  saveBlob(new Blob([text], { type }), name);
}

export async function savePng(canvas, name) {
  saveBlob(await new Promise((resolve) => canvas.toBlob(resolve, "image/png")), name);
}

export const listName = (extension) => `chestxray-${words.now().replace(/\D/g, "")}.${extension}`;

export function pictureName(path) {
  const file = path.split("/").at(-1);
  return `${file.replace(/\.[^.]+$/, "")}-reading.png`;
}

function cellsOf(reading) {
  const { judgement } = reading;
  const common = {
    path: reading.path,
    operating_point: judgement.point,
    threshold: judgement.threshold,
    model: judgement.model,
    bundle_sha256: judgement.bundleSha256,
  };
  if (reading.state === "failed") {
    const { code, detail, input_check: check } = reading.problem;
    return {
      ...common,
      error_code: code,
      error: detail,
      input_check_accepted: check?.accepted,
      input_check_score: check?.score,
    };
  }
  const { prediction } = reading;
  return {
    ...common,
    ...decided(prediction, judgement),
    probability: prediction.probability,
    input_check_accepted: prediction.input_check.accepted,
    input_check_score: prediction.input_check.score,
    warnings: prediction.warnings.join("; "),
  };
}

/** What the chosen operating point decides, as the service says it. */
function decided(prediction, judgement) {
  const { label, uncertain } = judgement.of(prediction);
  return { label, uncertain };
}

function csvCell(value) {
  let text = String(value);
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) {
    text = `'${text}`; // or a spreadsheet would compute what a file's name says
  }
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000); // the browser reads it after this returns
}
