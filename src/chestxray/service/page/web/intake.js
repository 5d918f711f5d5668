// Where files come from: a dialog, a drop of files and folders, a paste, an example.
//
// Does not: look into a file, or fetch an example (service.js does).

import { byId, element } from "./elements.js";
import * as words from "./words.js";

/** `take([{file, path}])` gets what comes in. */
export function listenToFiles(take) {
  const input = byId("files");
  for (const id of ["add-files", "choose-files"]) {
    byId(id).addEventListener("click", () => input.click());
  }
  input.addEventListener("change", () => {
    take([...input.files].map(named));
    input.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length > 0) {
      event.preventDefault();
      take([...event.clipboardData.files].map(named));
    }
  });
  listenToDrops(take);
}

/** Offer the examples of these names; `fetchExample(name)` resolves to the bytes of one. */
export function offerExamples(names, take, fetchExample) {
  const items = names.map((name) => {
    const picture = element("img", { src: `page/examples/${name}`, alt: "", width: 112, height: 112 });
    const button = element("button", { type: "button" }, picture, words.exampleName(name));
    button.dataset.example = name;
    button.addEventListener("click", async () => {
      take([{ file: await fetchExample(name), path: name }]);
    });
    return element("li", {}, button);
  });
  byId("examples").replaceChildren(...items);
}

function listenToDrops(take) {
  const hint = byId("drop-here");
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    hint.hidden = !event.dataTransfer.types.includes("Files");
  });
  document.addEventListener("dragleave", (event) => {
    hint.hidden = event.relatedTarget === null;
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    hint.hidden = true;
    // The entries must be taken now: after the event they are gone.
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry());
    const files = [...event.dataTransfer.files];
    const anyFolder = entries.some((entry) => entry?.isDirectory);
    take(anyFolder ? await filesInAll(entries) : files.map(named));
  });
}

const named = (file) => ({ file, path: file.name || "pasted picture" });

async function filesInAll(entries) {
  return (await Promise.all(entries.filter(Boolean).map(filesIn))).flat();
}

/** All files of a dropped file or folder, by name. */
async function filesIn(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    return [{ file, path: entry.fullPath.replace(/^\//, "") }];
  }
  const reader = entry.createReader();
  const entries = [];
  for (let some; (some = await new Promise((ok, no) => reader.readEntries(ok, no))).length > 0; ) {
    entries.push(...some); // a browser gives a hundred at a time
  }
  entries.sort((a, b) => a.name.localeCompare(b.name, undefined, { numeric: true }));
  return filesInAll(entries);
}
