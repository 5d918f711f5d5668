// The API key: asked for when the service wants one, tried, and kept for this tab only.
//
// Does not: keep it anywhere but in the tab (service.js does that).

import { byId } from "./elements.js";
import * as service from "./service.js";

export class KeyPrompt {
  #given = null; // {promise, resolve} while a key is wanted

  /** `onWanted(message)` hears that nothing goes on without a key; `onWanted(null)` that it does. */
  constructor(onWanted) {
    this.onWanted = onWanted;
    byId("key-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#tryKey(byId("key").value);
    });
    byId("api-key").addEventListener("click", () => {
      if (this.#given === null) {
        service.key.forget();
        location.reload(); // nothing of whoever had the key stays on the page
      } else {
        byId("key-prompt").showModal();
      }
    });
  }

  /** Resolves when there is a key that the service knows. */
  wanted(message) {
    this.#given ??= Promise.withResolvers();
    byId("api-key").hidden = false;
    byId("api-key").textContent = "Enter API key";
    this.onWanted("This service answers who has an API key.");
    byId("key-error").textContent = message;
    if (!byId("key-prompt").open) {
      byId("key-prompt").showModal();
    }
    return this.#given.promise;
  }

  async #tryKey(key) {
    service.key.set(key);
    try {
      await service.metadata();
    } catch (error) {
      if (error instanceof service.KeyWanted) {
        service.key.forget();
        byId("key-error").textContent = error.message;
        byId("key").select();
        return;
      }
      // Not now: whether the key is right will be seen later.
    }
    byId("key").value = "";
    byId("key-error").textContent = "";
    byId("key-prompt").close();
    byId("api-key").textContent = "Forget API key";
    this.onWanted(null);
    this.#given?.resolve();
    this.#given = null;
  }

  /** There is a key from before. */
  remembered() {
    byId("api-key").hidden = false;
    byId("api-key").textContent = "Forget API key";
  }
}
