// The service's models, and the bundles that have answered as each: one may be replaced at any time.
//
// Does not: judge an answer (judgement.js does), or show anything.

import { Judgement } from "./judgement.js";
import * as service from "./service.js";

export class Models {
  #judgements = new Map(); // name of a model → by each of its bundles, the one at work last
  #asking = new Map(); // name of a model → a promise while the service tells of it anew

  /** `onReplaced(judgement)` hears of another bundle at work. */
  constructor(onReplaced) {
    this.onReplaced = onReplaced;
  }

  get names() {
    return [...this.#judgements.keys()];
  }

  /** The judgement by the bundle at work, as far as the service has told. */
  atWork(name) {
    return this.#judgements.get(name).at(-1);
  }

  /**
   * The judgement by the bundle that answered, of which the service is asked where it was not at
   * work before; undefined where the service tells of another. Raises what service.js raises when it
   * is put off.
   */
  async thatAnswered(name, bundleSha256) {
    if (this.atWork(name).bundleSha256 !== bundleSha256) {
      await this.#askAnew(name);
    }
    return this.#judgements.get(name).find((of) => of.bundleSha256 === bundleSha256);
  }

  /** Hear what the service tells of the bundle at work. */
  learn(metadata) {
    const all = this.#judgements.get(metadata.model) ?? [];
    const before = all.at(-1);
    const known = all.find((of) => of.bundleSha256 === metadata.bundle_sha256);
    const judgement = known ?? new Judgement(metadata, before?.chosen);
    this.#judgements.set(metadata.model, [...all.filter((of) => of !== judgement), judgement]);
    if (before !== undefined && before !== judgement) {
      before.replaced = true;
      judgement.replaced = false;
      this.onReplaced(judgement);
    }
  }

  /** Once for all who want to know at the same time. */
  #askAnew(name) {
    if (!this.#asking.has(name)) {
      const told = service.metadata(name).then((metadata) => this.learn(metadata));
      this.#asking.set(name, told.finally(() => this.#asking.delete(name)));
    }
    return this.#asking.get(name);
  }
}
