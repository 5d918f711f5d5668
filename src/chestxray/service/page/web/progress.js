// How far the list is, how long it may take, and what holds it up.
//
// Does not: hurry or stop anything (queue.js does).

import { byId, element } from "./elements.js";
import * as words from "./words.js";

const ENOUGH = 5; // finished readings, before a rate is worth telling

export class Progress {
  #begun = null; // {at, finished}: when the queue last began, and how many had been read then

  show(readings, queue) {
    const finished = readings.filter((reading) => reading.finished).length;
    this.#begun = queue.busy ? (this.#begun ?? { at: Date.now(), finished }) : null;
    byId("progress-area").hidden = !(queue.stopped || (queue.busy && readings.length > 1));
    byId("progress").max = readings.length;
    byId("progress").value = finished;
    byId("progress-text").textContent =
      `${finished} of ${readings.length}${this.#timeLeft(finished, readings.length)}`;
    byId("stop").hidden = !queue.busy;
    byId("continue").hidden = !queue.stopped;
  }

  #timeLeft(finished, all) {
    const done = finished - (this.#begun?.finished ?? 0);
    if (this.#begun === null || done < ENOUGH) {
      return "";
    }
    const secondsEach = (Date.now() - this.#begun.at) / 1000 / done;
    return `, about ${words.duration(secondsEach * (all - finished))} left`;
  }
}

/** Why nothing goes on, and for how many seconds where that is known; `null`: it goes on. */
export function showWait(message, leftS) {
  const wait = byId("wait");
  if (message === null) {
    wait.replaceChildren();
    return;
  }
  if (wait.firstChild?.textContent !== message) {
    // The seconds are for the eye: read out each second they would drown everything else.
    const seconds = element("span");
    seconds.setAttribute("aria-hidden", "true");
    wait.replaceChildren(element("span", {}, message), seconds);
  }
  wait.lastChild.textContent = leftS === undefined ? "" : ` Next try in ${leftS} s.`;
}
