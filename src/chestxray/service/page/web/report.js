// A picture to take away: the whole radiograph as it is shown, with colour bar and caption; on paper
// with the answer beside it.
//
// Does not: draw (picture.js does).

import { byId } from "./elements.js";
import { compose } from "./picture.js";
import * as words from "./words.js";

/** Draw the viewer's picture with its caption into `canvas`, to be saved. */
export function drawWithCaption(canvas, viewer, reading, judgement) {
  const answered = reading.state === "answered";
  draw(canvas, viewer, judgement, [
    ...(answered ? verdict(reading.prediction, judgement) : [words.state(reading)]),
    ...(viewer.heatmapSeen ? [judgement.evidenceRemark] : []),
    `Not for diagnostic use. Answered by ${identity(judgement)}, ${words.now()}.`,
  ]);
}

/** Fill the part of the page that only paper shows; empty it when there is nothing to print. */
export function fill(viewer, reading, judgement) {
  const ready = reading !== null && judgement !== null;
  byId("report-file").textContent = ready
    ? `${reading.path}, answered by ${identity(judgement)}, printed ${words.now()}. ` +
      "Not for diagnostic use: no answer replaces a radiologist’s."
    : "Nothing has been read.";
  byId("report-remark").textContent = ready && viewer.heatmapSeen ? judgement.evidenceRemark : "";
  const canvas = byId("report-picture");
  canvas.hidden = !ready || viewer.picture === null;
  if (canvas.hidden) {
    canvas.width = canvas.height = 0;
  } else {
    draw(canvas, viewer, judgement, []); // the page prints the words
  }
}

function draw(canvas, viewer, judgement, caption) {
  compose(canvas, {
    picture: viewer.picture,
    window: viewer.window,
    heatmap: viewer.heatmapSeen ? viewer.heatmap : null,
    opacity: viewer.opacity,
    colourBar: {
      image: byId("colour-bar").querySelector("img"),
      ticks: judgement.ticks,
      title: judgement.evidenceUnit,
    },
    caption,
  });
}

export function identity({ model, bundleSha256 }) {
  return `model ${model}, bundle ${bundleSha256.slice(0, 12)}`;
}

/** The lines of a verdict, with all that warns of it. */
function verdict(prediction, judgement) {
  const { label, uncertain } = judgement.of(prediction);
  const { warnings, remarks } = words.warnings(prediction);
  return [
    `${label}${uncertain ? ", uncertain" : ""} · calibrated probability of ` +
      `${judgement.finding.positive} ${words.probability(prediction.probability)} · operating ` +
      `point ${words.pointName(judgement.point)}, from ${words.threshold(judgement.threshold)}`,
    ...warnings.map((text) => `Warning: ${text}`),
    ...remarks,
  ];
}
