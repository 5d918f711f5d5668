// A reading: one file on the list, and all that has become of it.
//
// Does not: send itself (queue.js and service.js do), or draw itself (worklist.js and answer.js do).

import * as picture from "./picture.js";
import * as service from "./service.js";

const THUMBNAIL_PX = 112; // twice its size on the page, for dense screens

export class Reading {
  state = "waiting"; // then "reading", then "answered" or "failed"
  prediction = null; // as /predict answers
  problem = null; // problem details (RFC 9457), the service's or the page's own
  thumbnail = null; // a canvas
  inputCheck = "refuse"; // "warn": answer whatever the input check says

  /** `path` is its name, with folders where it was dropped in one. */
  constructor({ file, path }) {
    this.file = file;
    this.path = path;
  }

  get finished() {
    return this.state === "answered" || this.state === "failed";
  }

  /**
   * Have the service read it, which takes files of `maxFileBytes` and answers by the bundle
   * `bundleSha256`. Raises what service.js raises when it is put off.
   */
  async send(signal, { maxFileBytes, bundleSha256 }) {
    if (this.file.size > maxFileBytes) {
      const most = Number((maxFileBytes / 2 ** 20).toPrecision(3));
      const detail = `the service takes files of ${most} MiB at most`;
      this.#fail({ title: "Too many bytes", detail, status: 413, code: "too_many_bytes" });
      return;
    }
    let blob;
    try {
      blob = new Blob([await this.file.arrayBuffer()]); // the file may go or change meanwhile
    } catch {
      const detail = "the browser could not read it from the disk";
      this.#fail({ title: "Unreadable file", detail, status: 0, code: "unreadable" });
      return;
    }
    const image = await picture.decode(blob);
    if (image !== null) {
      this.thumbnail = picture.thumbnail(image, image.width, image.height, THUMBNAIL_PX);
      image.close();
    }
    const preview = image === null;
    const { prediction, error } = await service.read(blob, {
      inputCheck: this.inputCheck,
      preview,
      signal,
    });
    if (prediction && prediction.model.bundle_sha256 !== bundleSha256) {
      // Its thresholds are not those that the page knows.
      const detail = "the service answers by another bundle since this page was opened; reload it";
      this.#fail({ title: "Another model", detail, status: 409, code: "bundle_changed" });
      return;
    }
    this.prediction = prediction ?? null;
    this.problem = error ?? null;
    this.state = prediction ? "answered" : "failed";
    if (prediction?.preview) {
      const { width_px: width, height_px: height } = prediction.radiograph;
      const shown = await picture.fromUrl(prediction.preview);
      this.thumbnail = picture.thumbnail(shown, width, height, THUMBNAIL_PX);
    }
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

  #fail(problem) {
    this.problem = problem;
    this.state = "failed";
  }
}
