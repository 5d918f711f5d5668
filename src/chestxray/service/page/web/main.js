// The page put together: who hears what from whom.
//
// Does not: do anything itself that another module could.

import { Answer } from "./answer.js";
import { Controls } from "./controls.js";
import { byId, element, radio } from "./elements.js";
import { listenToFiles, offerExamples } from "./intake.js";
import { KeyPrompt } from "./key_prompt.js";
import { listenToKeys } from "./keyboard.js";
import { modelCard } from "./model_card.js";
import { Models } from "./models.js";
import * as picture from "./picture.js";
import { Progress, showWait } from "./progress.js";
import { Queue } from "./queue.js";
import { Reading } from "./readings.js";
import { choiceAgainst } from "./refusals.js";
import * as report from "./report.js";
import * as save from "./save.js";
import * as service from "./service.js";
import { Viewer } from "./viewer.js";
import * as words from "./words.js";
import { Worklist } from "./worklist.js";

const models = new Models(replaced);
let judgement = null; // by the bundle at work of the model chosen, once the service has told of it
let maxFileBytes = Infinity;

const worklist = new Worklist(show);
const answer = new Answer(choosePoint);
const progress = new Progress();
const viewer = new Viewer(byId("picture"), showView);
const controls = new Controls(viewer);
const keyPrompt = new KeyPrompt(showWait);
const queue = new Queue({
  send: (outcome, signal) => outcome.send(signal, { maxFileBytes, models }),
  onChange: changed,
  onWait: showWait,
  wantKey: (message) => keyPrompt.wanted(message),
});

// --- beginning

async function start() {
  const settings = await persistently(service.settings);
  maxFileBytes = settings.max_file_bytes;
  offerExamples(settings.examples, take, (name) => persistently(() => service.example(name)));
  if (settings.demands_key) {
    await (service.key.get() === null ? keyPrompt.wanted("") : keyPrompt.remembered());
  }
  const first = await persistently(() => service.metadata());
  models.learn(first); // the default stands first
  for (const { name } of first.models.filter(({ name }) => name !== first.model)) {
    models.learn(await persistently(() => service.metadata(name)));
  }
  if (models.names.length > 1) {
    offerModels();
  }
  chooseModel(first.model);
  byId("open-model-card").disabled = false;
}

function offerModels() {
  const remark = ({ finding }) => words.meaning(finding.code.meaning);
  byId("models").append(
    ...models.names.map((name) =>
      radio("model", name, name, remark(models.atWork(name)), chooseModel),
    ),
  );
  byId("models").hidden = false;
  listenToKeys([{ keys: ["n"], shown: "N", does: "next model", run: chooseNextModel }]);
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
  if (judgement !== null) {
    haveAnswered(readings);
  }
  if (worklist.selected === null) {
    worklist.select(readings[0]);
  }
}

/** Turn to what the chosen model says of readings, and ask it where it has not said it yet. */
function haveAnswered(readings) {
  for (const reading of readings) {
    reading.turnTo(judgement.model);
  }
  queue.add(readings.filter((reading) => !reading.finished).map(({ outcome }) => outcome));
  showProgress();
}

function readAgain(reading, choice) {
  reading.renew(choice);
  queue.add([reading.outcome]);
  worklist.update(reading);
  showAnswer();
  showByAnother(reading);
}

function changed(outcome) {
  if (outcome !== null && outcome === outcome.reading.outcome) {
    const { reading } = outcome;
    worklist.update(reading);
    if (reading === worklist.selected) {
      showAnswer();
      showPicture(reading);
    }
  }
  showProgress();
}

function showProgress() {
  progress.show(worklist.readings, queue);
  if (!queue.busy) {
    showSummary();
    worklist.arrange();
  }
}

function showSummary() {
  const { length } = worklist.readings;
  byId("summary").textContent = length > 0 ? worklist.summary(judgement.finding) : "";
}

// --- the one that is looked at

function show(reading) {
  showAnswer();
  byId("file-name").textContent = reading?.path ?? "";
  byId("welcome").hidden = reading !== null;
  byId("tools").hidden = reading === null;
  viewer.picture?.image.close?.();
  viewer.show(null);
  showPicture(reading);
}

/** By whose facts a reading is shown: those of the bundle that answered, or of the one at work. */
const judgementOf = (reading) => reading?.judgement ?? judgement;

function showAnswer() {
  const reading = worklist.selected;
  const by = judgementOf(reading);
  if (by !== answer.judgement) {
    showFacts(by);
  }
  answer.show(reading, by);
}

function showFacts(of) {
  byId("identity").textContent = `Answered by ${report.identity(of)}.`;
  byId("evidence-remark").textContent = of.evidenceRemark;
  byId("evidence-unit").textContent = of.evidenceUnit;
  byId("not-validated").hidden = of.heatmapValidated;
  byId("colour-bar-ticks").replaceChildren(
    ...of.ticks.map(({ at, text }) => {
      const tick = element("li", {}, text);
      tick.style.setProperty("--at", at);
      return tick;
    }),
  );
}

async function showPicture(reading) {
  if (reading === null) {
    showNote("");
    return;
  }
  const { outcome } = reading;
  const isOld = () => reading !== worklist.selected || outcome !== reading.outcome;
  if (viewer.picture === null) {
    const found = await reading.fullPicture();
    if (isOld() || viewer.picture !== null) {
      found?.image.close?.();
      return;
    }
    showNote(found || !reading.finished ? "" : whyNotShown(reading));
    if (found?.isPreview) {
      byId("file-name").textContent = `${reading.path} (as the network saw it)`;
    }
    viewer.show(found);
  }
  if (reading.prediction && viewer.heatmap === null) {
    const heatmap = await picture.fromUrl(reading.prediction.heatmap);
    if (!isOld()) {
      viewer.setHeatmap(heatmap);
    }
  }
}

const whyNotShown = ({ problem }) =>
  choiceAgainst(problem)
    ? "The browser cannot show this file; a picture of it comes with an answer."
    : "Neither the browser nor the service can show this.";

/** The picture stays as it is looked at, unless it was what the other network saw. */
function showByAnother(reading) {
  if (viewer.picture?.isPreview) {
    show(reading);
  } else {
    viewer.setHeatmap(null);
    showPicture(reading);
  }
}

function showNote(text) {
  byId("picture-note").textContent = text;
  byId("picture-note").hidden = text === "";
}

function showView() {
  controls.show(worklist.selected, judgementOf(worklist.selected));
}

// --- what the reader chooses

function chooseModel(name) {
  for (const input of byId("models").querySelectorAll("input")) {
    input.checked = input.value === name;
  }
  judgeBy(models.atWork(name));
  queue.clear();
  haveAnswered(worklist.readings);
  worklist.updateAll();
  showAnswer();
  showByAnother(worklist.selected);
}

function judgeBy(other) {
  judgement = other;
  byId("model-card-content").replaceChildren(...modelCard(judgement.metadata));
}

/** Go on by the facts of a bundle that has replaced another. */
function replaced(other) {
  if (judgement?.model === other.model) {
    judgeBy(other);
    worklist.updateAll();
    showAnswer();
  }
}

function chooseNextModel() {
  const { names } = models;
  chooseModel(names[(names.indexOf(judgement.model) + 1) % names.length]);
}

function choosePoint(name) {
  judgement.chosen.point = name;
  answer.showChosenPoint();
  worklist.updateAll();
  showSummary();
}

// --- what the reader does

const openDialog = (id) => byId(id).showModal();

async function savePicture() {
  const reading = worklist.selected;
  const canvas = element("canvas");
  report.drawWithCaption(canvas, viewer, reading, judgementOf(reading));
  await save.savePng(canvas, save.pictureName(reading.path));
}

function saveList(of, type, extension) {
  save.saveText(of(worklist.inOrder()), type, save.listName(extension));
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
  "save-png": savePicture,
  print: () => window.print(),
  "read-anyway": () => readAgain(worklist.selected, choiceAgainst(worklist.selected.problem)),
  "try-again": () => readAgain(worklist.selected),
  "read-again": () => readAgain(worklist.selected),
};
for (const [id, clicked] of Object.entries(clicks)) {
  byId(id).addEventListener("click", clicked);
}
for (const button of document.querySelectorAll("[data-close]")) {
  button.addEventListener("click", () => byId(button.dataset.close).close());
}
window.addEventListener("beforeprint", () =>
  report.fill(viewer, worklist.selected, judgementOf(worklist.selected)),
);

listenToFiles(take);
listenToKeys([
  { keys: ["j", "ArrowDown"], shown: "J, in the list ↓", does: "next", run: () => worklist.move(1) },
  { keys: ["k", "ArrowUp"], shown: "K, in the list ↑", does: "previous", run: () => worklist.move(-1) },
  { keys: ["h"], shown: "H", does: "heatmap on and off", run: () => viewer.toggleHeatmap() },
  { keys: ["i"], shown: "I", does: "invert", run: () => viewer.invert() },
  { keys: ["r", "0"], shown: "R or 0", does: "whole picture, full window", run: () => viewer.reset() },
  { keys: ["+", "="], shown: "+", does: "zoom in", run: () => viewer.zoomIn() },
  { keys: ["-"], shown: "−", does: "zoom out", run: () => viewer.zoomOut() },
  { keys: ["w"], shown: "W", does: "dragging changes the window", run: () => viewer.set({ tool: "window" }) },
  { keys: ["p"], shown: "P", does: "dragging moves the picture", run: () => viewer.set({ tool: "pan" }) },
  { keys: ["1", "2", "3"], shown: "1, 2, 3", does: "operating point", run: choosePointByKey },
  { keys: ["o"], shown: "O", does: "add files", run: () => byId("files").click() },
  { keys: ["m"], shown: "M", does: "model card", run: () => judgement && openDialog("model-card") },
  { keys: ["?"], shown: "?", does: "this help", run: () => openDialog("help") },
]);

function choosePointByKey(pressed) {
  const name = Object.keys(answer.judgement?.points ?? {})[Number(pressed) - 1];
  if (name) {
    choosePoint(name);
  }
}

start();
