// Which file is sent when: a few at a time, and none while the service says "not now".
//
// Does not: know what sending is (its `send` does), or what is shown.

import { KeyWanted, NotNow } from "./service.js";

const IN_FLIGHT = 4; // of a browser's six connections to one host

export class Queue {
  #waiting = [];
  #run = newRun();
  #pause = null; // a promise while nothing may be sent
  #pauseEnds = 0; // ms, as Date.now()

  /**
   * `send(outcome, signal)` resolves when the outcome (of readings.js) is an answer or a failure for
   * good; `onChange(outcome)` hears of every new state, and `onChange(null)` of an end;
   * `onWait(message, s)` of each second of a pause, and `onWait(null)` of its end;
   * `wantKey(message)` resolves when there is a new key.
   */
  constructor({ send, onChange, onWait, wantKey }) {
    Object.assign(this, { send, onChange, onWait, wantKey });
  }

  get busy() {
    return this.#run.workers > 0 && !this.#run.abort.signal.aborted;
  }

  get stopped() {
    return !this.busy && this.#waiting.length > 0;
  }

  add(outcomes) {
    this.#waiting.push(...outcomes);
    this.start();
  }

  start() {
    if (this.#run.abort.signal.aborted) {
      this.#run = newRun(); // the old one's workers are ending
    }
    const run = this.#run;
    for (let free = Math.min(IN_FLIGHT - run.workers, this.#waiting.length); free > 0; free -= 1) {
      run.workers += 1;
      this.#work(run, this.#waiting);
    }
  }

  /** Send nothing more; what is under way waits again. */
  stop() {
    this.#run.abort.abort();
    this.onChange(null);
  }

  clear() {
    this.#waiting = []; // the workers give back to the old one
    this.stop();
  }

  async #work(run, waiting) {
    const { signal } = run.abort;
    while (!signal.aborted) {
      await this.#pause;
      const outcome = signal.aborted ? undefined : waiting.shift();
      if (outcome === undefined) {
        break;
      }
      outcome.state = "reading";
      this.onChange(outcome);
      try {
        await this.send(outcome, signal);
      } catch (error) {
        outcome.state = "waiting";
        waiting.unshift(outcome);
        this.onChange(outcome);
        await this.#putOff(error, signal);
      }
      this.onChange(outcome);
    }
    run.workers -= 1;
    this.onChange(null);
  }

  async #putOff(error, signal) {
    if (error instanceof NotNow) {
      this.#pauseEnds = Math.max(this.#pauseEnds, Date.now() + 1000 * error.waitS);
      this.#pause ??= this.#countDown(error.message, signal);
    } else if (error instanceof KeyWanted) {
      this.#pause ??= this.#untilKey(error.message, signal);
    } else if (error.name !== "AbortError") {
      this.stop();
      throw error;
    }
  }

  async #countDown(message, signal) {
    for (let leftS; (leftS = Math.ceil((this.#pauseEnds - Date.now()) / 1000)) > 0; ) {
      if (signal.aborted) {
        break;
      }
      this.onWait(message, leftS);
      await new Promise((resolve) => setTimeout(resolve, Math.min(1000, 1000 * leftS)));
    }
    this.onWait(null);
    this.#pause = null;
  }

  async #untilKey(message, signal) {
    const stopped = new Promise((resolve) => signal.addEventListener("abort", resolve));
    await Promise.race([this.wantKey(message), stopped]);
    this.#pause = null;
  }
}

const newRun = () => ({ abort: new AbortController(), workers: 0 });
