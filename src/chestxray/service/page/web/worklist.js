// The list: every file with thumbnail, name and state, in an order; which one is shown.
//
// Does not: have anything read (queue.js does), or say how far it is (progress.js does).

import { byId, element } from "./elements.js";
import * as words from "./words.js";

const WARNED = "with a warning";

export class Worklist {
  readings = [];
  selected = null;
  #rows = new Map(); // reading → {item, button, state, warned, thumbnail}
  #order = "added";

  constructor(onSelect) {
    this.onSelect = onSelect;
    byId("order").addEventListener("change", (event) => {
      this.#order = event.target.value;
      this.arrange();
    });
  }

  add(readings) {
    this.readings.push(...readings);
    for (const reading of readings) {
      this.#rows.set(reading, this.#row(reading));
    }
    this.arrange();
  }

  clear() {
    this.readings = [];
    this.selected = null;
    this.#rows.clear();
    this.arrange();
  }

  select(reading) {
    this.#rows.get(this.selected)?.button.removeAttribute("aria-current");
    this.selected = reading;
    const row = this.#rows.get(reading);
    if (row) {
      row.button.setAttribute("aria-current", "true");
      row.item.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
    this.onSelect(reading);
  }

  /** The reading `step` places after the selected one, if there is one. */
  move(step) {
    const shown = this.inOrder();
    const next = shown[shown.indexOf(this.selected) + step];
    if (next) {
      this.select(next);
    }
  }

  inOrder() {
    const probability = (reading) => reading.prediction?.probability ?? -1;
    const rank = { failed: 0, answered: 1, reading: 2, waiting: 2 };
    const by = {
      added: () => 0,
      probability: (a, b) => probability(b) - probability(a),
      state: (a, b) => rank[a.state] - rank[b.state],
    };
    return this.readings.toSorted(by[this.#order]);
  }

  /** Put the rows in their order. */
  arrange() {
    const list = byId("readings");
    const items = this.inOrder().map((reading) => this.#rows.get(reading).item);
    const same = items.length === list.children.length && items.every((x, i) => x === list.children[i]);
    if (!same) {
      const focused = document.activeElement;
      list.replaceChildren(...items);
      focused.focus({ preventScroll: true }); // moved, it has lost it
    }
    byId("order-area").hidden = this.readings.length < 2;
    byId("list-actions").hidden = this.readings.length === 0;
  }

  /** Show what has become of one reading. */
  update(reading) {
    const row = this.#rows.get(reading);
    if (!row) {
      return; // it has been cleared away
    }
    row.state.textContent = words.state(reading);
    row.button.dataset.state = reading.state;
    const { prediction, judgement } = reading;
    row.button.dataset.finding =
      prediction === null ? "" : words.finding(judgement.of(prediction).positive);
    row.warned.hidden = prediction === null || words.warnings(prediction).warnings.length === 0;
    if (reading.thumbnail && row.thumbnail !== reading.thumbnail) {
      row.thumbnail.replaceWith(reading.thumbnail);
      row.thumbnail = reading.thumbnail;
    }
  }

  updateAll() {
    for (const reading of this.readings) {
      this.update(reading);
    }
  }

  /** How many there are of each, in a line; of the labels of a finding also where there are none. */
  summary({ positive, negative }) {
    const labels = { [positive]: 0, [negative]: 0 };
    let failed = 0;
    for (const reading of this.readings) {
      if (reading.state === "answered") {
        const { label } = reading.judgement.of(reading.prediction);
        labels[label] = (labels[label] ?? 0) + 1;
      }
      failed += reading.state === "failed";
    }
    const parts = Object.entries(labels).map(([label, n]) => `${n} ${label}`);
    return [...parts, `${failed} not judged`].join(" · ");
  }

  #row(reading) {
    const state = element("span", { className: "state" }, "waiting");
    const name = element("span", { className: "name", title: reading.path }, reading.path);
    const warned = element("span", { className: "warned", hidden: true, title: WARNED }, "⚠");
    warned.setAttribute("role", "img");
    warned.setAttribute("aria-label", WARNED);
    const thumbnail = element("canvas", { width: 1, height: 1 });
    const button = element(
      "button",
      { type: "button" },
      thumbnail,
      element("span", { className: "text" }, name, state),
      warned,
    );
    button.addEventListener("click", () => this.select(reading));
    return { item: element("li", {}, button), button, state, warned, thumbnail };
  }
}
