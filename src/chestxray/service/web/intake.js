// Where files come from: a dialog, a drop of files and folders, a paste, the examples.
//
// Does not: look into a file, or fetch an example (service.js does).

import { byId } from "./elements.js";

/** `take([{file, path}])` gets what comes in; `fetchExample(name)` resolves to an example's bytes. */
export function listenToFiles(take, fetchExample) {
  const input = byId("files");
  for (const id of ["add-files", "choose-files"]) {
    byId(id).addEventListener("click", () => input.click());
  }
  input.addEventListener("change", () => {
    take([...input.files].map(named));
    input.value = ""; // so that the same file can be chosen again
  });
  for (const button of document.querySelectorAll("[data-example]")) {
    const { example } = button.dataset;
    button.addEventListener("click", async () => {
      take([{ file: await fetchExample(example), path: example }]);
    });
  }
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length > 0) {
      event.preventDefault();
      take([...event.clipboardData.files].map(named));
    }
  });
  listenToDrops(take);
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
