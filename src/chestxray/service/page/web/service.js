// The service over HTTP: the questions that the page asks, and the two ways of being put off.
//
// Does not: ask again (queue.js does), or tell the service a file's name: it may be a patient's.

const STORED_KEY = "chestxray.api_key";
const COME_BACK_AFTER_S = 3; // where the service, or a proxy before it, does not say

/** The service wants an API key, or another one. */
export class KeyWanted extends Error {}

/** Not now: ask again after `waitS` seconds. The message says why, to people. */
export class NotNow extends Error {
  constructor(message, waitS) {
    super(message);
    this.waitS = waitS;
  }
}

const OF_HEATMAP = /^the heatmap is not validated/;

const NOT_NOW = {
  429: "The service is busy.",
  502: "The service cannot be reached.",
  503: "The service is starting or stopping.",
  504: "The service cannot be reached.",
};

// The tab's own storage: gone with the tab, and no other tab's.
export const key = {
  get: () => sessionStorage.getItem(STORED_KEY),
  set: (value) => sessionStorage.setItem(STORED_KEY, value),
  forget: () => sessionStorage.removeItem(STORED_KEY),
};

/** Settings of the service that the page heeds. */
export const settings = () => told("page/settings.json");

/** Which models there are, and what the manifest says of the one named, or of the default. */
export const metadata = (model) =>
  told(model === undefined ? "metadata" : `metadata?${new URLSearchParams({ model })}`);

/** An example's bytes. */
export async function example(name) {
  const response = await reached(fetch(`page/examples/${name}`));
  return reached(response.blob());
}

/**
 * One file's element of a batch: `{prediction}` or `{error}`, a problem (RFC 9457). `options` are
 * of the query of /predict. What warns of the heatmap is left out: the page says it with the
 * heatmap, which is not looked at until it is asked for.
 *
 * A batch of one, because in a batch a bad file is an answer and not a failed request.
 */
export async function read(blob, options, signal) {
  const body = new FormData();
  body.append("files", blob, "radiograph");
  const query = new URLSearchParams({ heatmap: true, evidence: true, ...options });
  const { ok, answer } = await ask(`predict_batch?${query}`, { method: "POST", body, signal });
  if (!ok) {
    return { error: answer };
  }
  const [{ prediction, error }] = answer.results;
  if (prediction) {
    prediction.warnings = prediction.warnings.filter((text) => !OF_HEATMAP.test(text));
  }
  return { prediction, error };
}

async function told(path) {
  const { ok, answer } = await ask(path);
  if (!ok) {
    throw new NotNow(`The service fails: ${answer.title}.`, COME_BACK_AFTER_S);
  }
  return answer;
}

/** `{ok, answer}`: whether the status says so, and the JSON or a problem in its place. */
async function ask(path, options = {}) {
  const headers = key.get() === null ? {} : { Authorization: `Bearer ${key.get()}` };
  const response = await reached(fetch(path, { ...options, headers }));
  const text = await reached(response.text()); // of refusals too: unread, it holds the connection
  if (response.status === 401) {
    throw new KeyWanted("The service does not know this key.");
  }
  if (response.status in NOT_NOW) {
    const waitS = Number(response.headers.get("Retry-After")) || COME_BACK_AFTER_S;
    throw new NotNow(NOT_NOW[response.status], waitS);
  }
  try {
    return { ok: response.ok, answer: JSON.parse(text) };
  } catch {
    const detail = `no answer of this service, with the HTTP status ${response.status}`;
    const problem = { title: "Unexpected answer", detail, status: 0, code: "unexpected_answer" };
    return { ok: false, answer: problem };
  }
}

async function reached(promise) {
  try {
    return await promise;
  } catch (error) {
    if (error.name === "AbortError") {
      throw error;
    }
    throw new NotNow("The service cannot be reached.", COME_BACK_AFTER_S);
  }
}
