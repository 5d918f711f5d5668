// A reading: one file on the list, and what has become of it at each model that was asked.
//
// Does not: send itself (queue.js and service.js do), or draw itself (worklist.js and answer.js do).

import * as picture from "./picture.js";
import * as service from "./service.js";

const THUMBNAIL_PX = 112; // twice its size on the page, for dense screens

export class Reading {
  thumbnail = null; // a canvas
  outcome = null; // at the model that is looked at; none before the page knows of any
  #outcomes = new Map(); // name of a model → Outcome

  /** `path` is its name, with folders where it was dropped in one. */
  constructor({ file, path }) {
    this.file = file;
    this.path = path;
  }

  /** Look at what has become of it at `model`; what is under way there is begun anew. */
  turnTo(model) {
    if (!this.#outcomes.get(model)?.finished) {
      this.#outcomes.set(model, new Outcome(this, model));
    }
    this.outcome = this.#outcomes.get(model);
  }

  /** Begin anew at the model that is looked at; `choice`, of /predict, is not to refuse it any more. */
  renew(choice) {
    const { model, overruled } = this.outcome;
    const now = choice ? { ...overruled, [choice]: "warn" } : overruled;
    this.outcome = new Outcome(this, model, now);
    this.#outcomes.set(model, this.outcome);
  }

  get state() {
    return this.outcome?.state ?? "waiting";
  }

  /** By the bundle that answered or refused; null before. */
  get judgement() {
    return this.outcome?.judgement ?? null;
  }

  get prediction() {
    return this.outcome?.prediction ?? null;
  }

  get problem() {
    return this.outcome?.problem ?? null;
  }

  get finished() {
    return this.outcome?.finished ?? false;
  }

  /**
   * The picture `{image, width, height, isPreview}` at its full size, the service's smaller preview
   * where the browser cannot show the file, or null where neither can.
   */
  async fullPicture() {
    const decoded = await picture.decode(this.file);
    if (decoded !== null) {
      const { width, height } = decoded;
      return { image: decoded, width, height, isPreview: false };
    }
    if (!this.prediction?.preview) {
      return null;
    }
    const { width_px: width, height_px: height } = this.prediction.radiograph;
    const image = await picture.fromUrl(this.prediction.preview);
    return { image, width, height, isPreview: true };
  }
}

/** What has become of a reading at one model. */
class Outcome {
  state = "waiting"; // then "reading", then "answered" or "failed"
  prediction = null; // as /predict answers
  problem = null; // problem details (RFC 9457), the service's or the page's own
  judgement = null; // by the bundle that it comes from

  /** `overruled` is what is not to be refused, as /predict takes it: `{population: "warn"}`. */
  constructor(reading, model, overruled = {}) {
    Object.assign(this, { reading, model, overruled });
  }

  get finished() {
    return this.state === "answered" || this.state === "failed";
  }

  /**
   * Have the service read it, which takes files of `maxFileBytes` and has the `models`. Raises what
   * service.js raises when it is put off.
   */
  async send(signal, { maxFileBytes, models }) {
    const { reading } = this;
    const fail = (problem) => {
      const judgement = models.atWork(this.model);
      Object.assign(this, { state: "failed", problem, judgement });
    };
    if (reading.file.size > maxFileBytes) {
      const most = Number((maxFileBytes / 2 ** 20).toPrecision(3));
      const detail = `the service takes files of ${most} MiB at most`;
      fail({ title: "Too many bytes", detail, status: 413, code: "too_many_bytes" });
      return;
    }
    let blob;
    try {
      blob = new Blob([await reading.file.arrayBuffer()]); // the file may go or change meanwhile
    } catch {
      const detail = "the browser could not read it from the disk";
      fail({ title: "Unreadable file", detail, status: 0, code: "unreadable" });
      return;
    }
    const image = await picture.decode(blob);
    if (image !== null) {
      reading.thumbnail = picture.thumbnail(image, image.width, image.height, THUMBNAIL_PX);
      image.close();
    }
    const query = { model: this.model, preview: image === null, ...this.overruled };
    const { prediction, error } = await service.read(blob, query, signal);
    if (error) {
      fail(error);
      return;
    }
    const judgement = await models.thatAnswered(this.model, prediction.model.bundle_sha256);
    if (judgement === undefined) {
      // Its thresholds are none that the page knows.
      const detail = "the service answers by another bundle than it tells of";
      fail({ title: "Another model", detail, status: 409, code: "bundle_changed" });
      return;
    }
    Object.assign(this, { state: "answered", prediction, judgement });
    if (prediction.preview) {
      const { width_px: width, height_px: height } = prediction.radiograph;
      const shown = await picture.fromUrl(prediction.preview);
      reading.thumbnail = picture.thumbnail(shown, width, height, THUMBNAIL_PX);
    }
  }
}
