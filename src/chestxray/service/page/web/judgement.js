// A model's facts (/metadata) at the operating point that the reader chose: what each answer means.
//
// Does not: draw anything, or hold any reading.

import { decide, uncertainZone } from "./decision.js";

export class Judgement {
  replaced = false; // whether another bundle is at work since

  /**
   * `metadata` is what the service tells of the model's bundle. `chosen` is what the reader chose at
   * the model, shared by all its bundles: an operating point, and how common the finding is.
   */
  constructor(metadata, chosen = { point: null, prevalence: 0.1 }) {
    this.metadata = metadata;
    this.chosen = chosen;
  }

  get model() {
    return this.metadata.model;
  }

  get bundleSha256() {
    return this.metadata.bundle_sha256;
  }

  get finding() {
    return this.metadata.finding;
  }

  get points() {
    return this.metadata.operating_points;
  }

  get point() {
    const { point } = this.chosen;
    return point in this.points ? point : this.metadata.default_operating_point;
  }

  get threshold() {
    return this.points[this.point].threshold;
  }

  get zone() {
    return uncertainZone(this.threshold, this.metadata.uncertainty.margin);
  }

  /** `{label, positive, uncertain}` of an answer at the chosen operating point. */
  of(prediction) {
    const { margin } = this.metadata.uncertainty;
    const { positive, uncertain } = decide(prediction.probability, this.threshold, margin);
    return { label: positive ? this.finding.positive : this.finding.negative, positive, uncertain };
  }

  /** Where the chosen point was measured: `[{where, sensitivity, specificity}]`. */
  get measured() {
    return this.metadata.metrics
      .filter((of) => of.operating_points?.[this.point])
      .map((of) => {
        const { sensitivity, specificity } = of.operating_points[this.point];
        return { where: whereOf(of), size: sizeOf(of), sensitivity, specificity };
      });
  }

  /** Whether heatmaps have been shown to point at the finding. */
  get heatmapValidated() {
    return this.metadata.evidence.validated;
  }

  /** What a heatmap shows and does not, in words. */
  get evidenceRemark() {
    const [rows] = this.metadata.evidence.shape;
    const sidePx = this.metadata.preprocessing.side_px;
    const cell = `One cell is ${Math.round(sidePx / rows)} px of the ${sidePx} px that the network sees.`;
    return this.heatmapValidated
      ? `Heatmap: it shows where the evidence lies, not where the disease is. ${cell}`
      : `Heatmap not validated: nothing shows that it points at the finding. ${cell}`;
  }

  get evidenceUnit() {
    return `evidence for ${this.finding.positive} (logit)`;
  }

  /** Of the heatmap's colour bar: `[{at, text}]`, `at` in [0, 1] from its foot. */
  get ticks() {
    const { scale } = this.metadata.evidence;
    return [
      { at: 0, text: "0" },
      { at: 0.5, text: (scale / 2).toFixed(1) },
      { at: 1, text: `≥ ${scale.toFixed(1)}` },
    ];
  }
}

export const whereOf = ({ dataset, split }) => `${dataset}, ${split}`;

export const sizeOf = ({ n, n_subjects: subjects }) => `n = ${n}, ${subjects} subjects`;
