// Keys: one table for what they do and for the help that says so.
//
// Does not: take a key that the focused control has its own use for.

import { byId, row } from "./elements.js";

const TYPED_INTO = "select, input:not([type=checkbox], [type=radio], [type=range])";

/** `commands`: `[{keys: ["j", "ArrowDown"], shown: "J or ↓", does: "next", run}]`. */
export function listenToKeys(commands) {
  byId("keys").append(...commands.map(({ shown, does }) => row(shown, does)));
  document.addEventListener("keydown", (event) => {
    if (!byId("single-keys").checked || event.ctrlKey || event.altKey || event.metaKey) {
      return;
    }
    const { target } = event;
    if (document.querySelector("dialog[open]") || target.closest(TYPED_INTO)) {
      return;
    }
    if (event.key.startsWith("Arrow") && target !== document.body && !target.closest("#worklist")) {
      return; // elsewhere arrows scroll, or move a slider
    }
    const pressed = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const command = commands.find(({ keys }) => keys.includes(pressed));
    if (command) {
      event.preventDefault();
      command.run(pressed);
    }
  });
}
