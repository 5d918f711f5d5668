// The page put together: who hears what from whom.
//
// Does not: do anything itself that another module could.

import { Answer } from "./answer.js";
import { byId, element } from "./elements.js";
import { listenToFiles } from "./intake.js";
import { Judgement } from "./judgement.js";
import { KeyPrompt } from "./key_prompt.js";
import { listenToKeys } from "./keyboard.js";
import { modelCard } from "./model_card.js";
import * as picture from "./picture.js";
import { Queue } from "./queue.js";
import { Reading } from "./readings.js";
import * as report from "./report.js";
import * as save from "./save.js";
import * as service from "./service.js";
import { Viewer } from "./viewer.js";
import { Worklist } from "./worklist.js";
import * as words from "./words.js";

let judgement = null; // until the service has told of its bundle
let answer = null;
let maxFileBytes = Infinity;
let run = null; // {since, finished}: of the queue, for the time that is left

const worklist = new Worklist(show);
const viewer = new Viewer(byId("picture"), showView);
const keyPrompt = new KeyPrompt((message) => showWait(message));
const queue = new Queue({
  send: async (reading, signal) => {
    await started;
    await reading.send(signal, { maxFileBytes, bundleSha256: judgement.metadata.bundle_sha256 });
  },
  onChange: changed,
  onWait: showWait,
  wantKey: (message) => keyPrompt.wanted(message),
});
const started = start();

// --- beginning

async function start() {
  const settings = await persistently(service.settings);
  maxFileBytes = settings.max_file_bytes;
  if (settings.demands_key) {
    await (service.key.get() === null ? keyPrompt.wanted("") : keyPrompt.remembered());
  }
  judgement = new Judgement(await persistently(service.metadata));
  answer = new Answer(judgement, choosePoint);
  byId("model-card-content").append(...modelCard(judgement.metadata));
  byId("open-model-card").disabled = false;
  byId("identity").textContent = `Answered by ${report.identity(judgement)}.`;
  byId("evidence-remark").textContent = judgement.evidenceRemark;
  byId("colour-bar-ticks").replaceChildren(
    ...judgement.ticks.map(({ at, text }) => {
      const tick = element("li", {}, text);
      tick.style.setProperty("--at", at);
      return tick;
    }),
  );
  answer.show(worklist.selected);
}

/** The answer to `ask`, however often the service says "not now". */
async function persistently(ask) {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof service.KeyWanted) {
        await keyPrompt.wanted(error.message);
      } else if (error instanceof service.NotNow) {
        showWait(error.message, error.waitS);
        await new Promise((resolve) => setTimeout(resolve, 1000 * error.waitS));
        showWait(null);
      } else {
        throw error;
      }
    }
  }
}

// --- files and what becomes of them

function take(files) {
  if (files.length === 0) {
    return;
  }
  const readings = files.map((file) => new Reading(file));
  worklist.add(readings);
  if (worklist.selected === null) {
    worklist.select(readings[0]);
  }
  queue.add(readings);
  showProgress();
}

function readAgain(reading, inputCheck) {
  Object.assign(reading, { state: "waiting", problem: null, inputCheck });
  queue.add([reading]);
}

function changed(reading) {
  if (reading !== null) {
    worklist.update(reading, judgement);
    if (reading === worklist.selected) {
      answer?.show(reading);
      showPicture(reading);
    }
  }
  showProgress();
}

function showProgress() {
  const { readings } = worklist;
  const finished = readings.filter((reading) => reading.finished).length;
  run = queue.busy ? (run ?? { since: Date.now(), finished }) : null;
  byId("progress-area").hidden = !(queue.stopped || (queue.busy && readings.length > 1));
  byId("progress").max = readings.length;
  byId("progress").value = finished;
  byId("progress-text").textContent = `${finished} of ${readings.length}${timeLeft(finished)}`;
  byId("stop").hidden = !queue.busy;
  byId("continue").hidden = !queue.stopped;
  if (!queue.busy) {
    showSummary();
    worklist.arrange();
  }
}

function showSummary() {
  byId("summary").textContent = worklist.readings.length > 0 ? worklist.summary(judgement) : "";
}

function timeLeft(finished) {
  const done = finished - (run?.finished ?? 0);
  if (run === null || done < 5) {
    return "";
  }
  const secondsEach = (Date.now() - run.since) / 1000 / done;
  return `, about ${words.duration(secondsEach * (worklist.readings.length - finished))} left`;
}

function showWait(message, leftS) {
  const wait = byId("wait");
  if (message === null) {
    wait.replaceChildren();
  } else if (wait.firstChild?.textContent !== message) {
    // The seconds are for the eye: read out each second they would drown everything else.
    const seconds = element("span", {});
    seconds.setAttribute("aria-hidden", "true");
    wait.replaceChildren(element("span", {}, message), seconds);
  }
  if (leftS !== undefined && message !== null) {
    wait.lastChild.textContent = ` Next try in ${leftS} s.`;
  }
}

// --- the one that is looked at

function show(reading) {
  answer?.show(reading);
  byId("file-name").textContent = reading?.path ?? "";
  byId("welcome").hidden = reading !== null;
  byId("tools").hidden = reading === null;
  viewer.picture?.image.close?.();
  viewer.show(null);
  showPicture(reading);
}

async function showPicture(reading) {
  if (reading === null) {
    showNote("");
    return;
  }
  if (viewer.picture === null) {
    const found = await reading.fullPicture();
    if (reading !== worklist.selected || viewer.picture !== null) {
      found?.image.close?.();
      return;
    }
    showNote(found || !reading.finished ? "" : "Neither the browser nor the service can show this.");
    if (found?.isPreview) {
      byId("file-name").textContent = `${reading.path} (as the network saw it)`;
    }
    viewer.show(found);
  }
  if (reading.prediction && viewer.heatmap === null) {
    const heatmap = await picture.fromUrl(reading.prediction.heatmap);
    if (reading === worklist.selected) {
      viewer.setHeatmap(heatmap);
    }
  }
}

function showNote(text) {
  byId("picture-note").textContent = text;
  byId("picture-note").hidden = text === "";
}

function showView() {
  const reading = worklist.selected;
  const { heatmapSeen } = viewer;
  byId("picture").hidden = viewer.picture === null;
  byId("picture").setAttribute(
    "aria-label",
    reading ? `Radiograph ${reading.path}${heatmapSeen ? " with heatmap" : ""}` : "No radiograph",
  );
  byId("colour-bar").hidden = !heatmapSeen;
  byId("save-png").disabled = byId("print").disabled = viewer.picture === null || judgement === null;
  byId("colour-bar").style.setProperty("--opacity", viewer.opacity);
  byId("window-width").value = viewer.window.width;
  byId("window-centre").value = viewer.window.centre;
  byId("opacity").value = 100 * viewer.opacity;
  for (const [id, pressed] of [
    ["tool-window", viewer.tool === "window"],
    ["tool-pan", viewer.tool === "pan"],
    ["invert", viewer.window.inverted],
    ["heatmap", viewer.heatmapShown],
  ]) {
    byId(id).setAttribute("aria-pressed", pressed);
  }
  byId("picture").dataset.tool = viewer.tool;
  byId("readout").textContent = viewer.picture === null ? "" : readout(reading);
}

function readout(reading) {
  const { width, centre } = viewer.window;
  const parts = [
    `zoom ${viewer.zoom.toFixed(1)}×`,
    `window ${Math.round(width)} at ${Math.round(centre)}`,
  ];
  const evidence = reading?.prediction?.evidence;
  if (evidence && viewer.pointer) {
    const { x, y } = viewer.pointer;
    const row = evidence[Math.floor(y * evidence.length)];
    const value = row[Math.floor(x * row.length)];
    parts.push(`evidence here ${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`);
  }
  return parts.join(" · ");
}

function choosePoint(name) {
  judgement.point = name;
  answer.showPoint();
  worklist.updateAll(judgement);
  showSummary();
}

// --- what the reader does

const toggleHeatmap = () => viewer.set({ heatmapShown: !viewer.heatmapShown });
const useTool = (tool) => viewer.set({ tool });
const openDialog = (id) => byId(id).showModal();

async function savePicture() {
  const reading = worklist.selected;
  const canvas = element("canvas");
  report.drawWithCaption(canvas, viewer, reading, judgement);
  await save.savePng(canvas, save.pictureName(reading.path));
}

function saveList(of, type, extension) {
  save.saveText(of(worklist.inOrder(), judgement), type, save.listName(extension));
}

function clear() {
  queue.clear();
  worklist.clear();
  worklist.select(null);
  showProgress();
}

const clicks = {
  "open-model-card": () => openDialog("model-card"),
  "open-help": () => openDialog("help"),
  stop: () => queue.stop(),
  continue: () => queue.start(),
  "save-csv": () => saveList(save.csvOf, "text/csv;charset=utf-8", "csv"),
  "save-json": () => saveList(save.jsonOf, "application/json", "json"),
  clear,
  "tool-window": () => useTool("window"),
  "tool-pan": () => useTool("pan"),
  "zoom-out": () => viewer.zoomBy(0.8),
  "zoom-in": () => viewer.zoomBy(1.25),
  invert: () => viewer.invert(),
  reset: () => viewer.reset(),
  heatmap: toggleHeatmap,
  "save-png": savePicture,
  print: () => window.print(),
  "read-anyway": () => readAgain(worklist.selected, "warn"),
  "try-again": () => readAgain(worklist.selected, worklist.selected.inputCheck),
};
for (const [id, clicked] of Object.entries(clicks)) {
  byId(id).addEventListener("click", clicked);
}
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => byId(button.dataset.close).close());
}
byId("window-width").addEventListener("input", (event) => {
  viewer.setWindow({ width: Number(event.target.value) });
});
byId("window-centre").addEventListener("input", (event) => {
  viewer.setWindow({ centre: Number(event.target.value) });
});
byId("opacity").addEventListener("input", (event) => {
  viewer.set({ opacity: Number(event.target.value) / 100, heatmapShown: true });
});
window.addEventListener("beforeprint", () => report.fill(viewer, worklist.selected, judgement));

listenToFiles(take);
listenToKeys([
  { keys: ["j", "ArrowDown"], shown: "J, in the list ↓", does: "next", run: () => worklist.move(1) },
  { keys: ["k", "ArrowUp"], shown: "K, in the list ↑", does: "previous", run: () => worklist.move(-1) },
  { keys: ["h"], shown: "H", does: "heatmap on and off", run: toggleHeatmap },
  { keys: ["i"], shown: "I", does: "invert", run: () => viewer.invert() },
  { keys: ["r", "0"], shown: "R or 0", does: "whole picture, full window", run: () => viewer.reset() },
  { keys: ["+", "="], shown: "+", does: "zoom in", run: () => viewer.zoomBy(1.25) },
  { keys: ["-"], shown: "−", does: "zoom out", run: () => viewer.zoomBy(0.8) },
  { keys: ["w"], shown: "W", does: "dragging changes the window", run: () => useTool("window") },
  { keys: ["p"], shown: "P", does: "dragging moves the picture", run: () => useTool("pan") },
  { keys: ["1", "2", "3"], shown: "1, 2, 3", does: "operating point", run: choosePointByKey },
  { keys: ["o"], shown: "O", does: "add files", run: () => byId("files").click() },
  { keys: ["m"], shown: "M", does: "model card", run: () => judgement && openDialog("model-card") },
  { keys: ["?"], shown: "?", does: "this help", run: () => openDialog("help") },
]);

function choosePointByKey(pressed) {
  const name = Object.keys(judgement?.points ?? {})[Number(pressed) - 1];
  if (name) {
    choosePoint(name);
  }
}
