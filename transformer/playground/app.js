// The playground: an input, one or two panes, settings. A change goes one way: settings -> panes -> what is drawn.

import { Camera } from "./camera.js";
import { makeControls } from "./controls.js";
import { byId, show } from "./dom.js";
import { renderExport } from "./export.js";
import { connectKey, requireKey } from "./key.js";
import { learnTasks, loadModels, taskOf } from "./models.js";
import { Pane } from "./pane.js";
import { resultWords } from "./results.js";
import { makeRowForm } from "./rows.js";
import { readSettings, writeSettings } from "./settings.js";
import { connectSources } from "./sources.js";

const POLL_MS = 5000;
const DEBOUNCE_MS = 350;

let settings = readSettings(location.hash);
let models = new Map();
/** @type {{blob?: Blob, rows?: unknown[][], name?: string} | null} */
let subject = null;
let flight = new AbortController();
let pending = 0;
let frame = 0;
let notice = ""; // of a new version, said with the next results
let isAway = false; // the server did not list its models

const panes = [makePane("A", "model", "version")];
const camera = new Camera(sendFrame);

function makePane(id, model, version) {
  return new Pane(id, {
    choose: (name, number) => choose({ [model]: name, [version]: number }),
    hover: (index) => {
      const here = panes.find((pane) => pane.id === id);
      const found = here?.shown?.predictions[index];
      for (const pane of panes) pane.hover(pane === here ? index : pane.indexOf(found));
    },
    exact: () => run({ exact: true }),
    changed: showBusy,
  });
}

function setStatus(words) {
  if (byId("status").textContent !== words) byId("status").textContent = words;
}

function fail(error) {
  show(byId("problem"), error);
  if (error && [401, 403].includes(error.status)) requireKey();
}

// ---- models

async function refresh() {
  let found;
  try {
    found = await loadModels();
  } catch (error) {
    isAway = true;
    fail(error);
    return;
  }
  if (isAway) fail(null);
  isAway = false;
  const swapped = [...found.values()].filter((each) => isSwapped(each, models.get(each.name)));
  models = found;
  for (const each of swapped) announce(each);
  const firstSight = panes.some((pane) => !pane.model);
  if (!settings.model) settings.model = bestStart();
  const isShown = swapped.some((each) => panes.some((pane) => pane.model === each.name));
  if (firstSight || isShown || panes.some((pane) => pane.missing)) {
    await usePanes();
    if (!camera.isOn) run(); // an image may have been chosen before the model was known
  } else for (const pane of panes) pane.setModels(models);
}

function isSwapped(now, before) {
  return before !== undefined && now.serving.join() !== before.serving.join();
}

function announce({ name, serving }) {
  notice = serving.length ? `${name}: version ${serving.at(-1)} serves now. ` : `${name}: no version serves now. `;
  setStatus(notice);
}

/** The model to begin with: one that serves and finds something in images, where names are all that is known. */
function bestStart() {
  const serving = [...models.values()].filter((each) => each.state === "serving");
  return (serving.find((each) => each.name === "digit-finder") ?? serving[0] ?? [...models.values()][0])?.name ?? "";
}

function choose(changes) {
  Object.assign(settings, changes);
  if ("model" in changes && changes.model !== panes[0].model) settings.classes = null;
  keep();
  usePanes().then(() => run());
}

async function usePanes() {
  const wanted = [[settings.model, settings.version]];
  if (settings.model2) wanted.push([settings.model2, settings.version2]);
  while (panes.length > wanted.length) panes.pop().root.remove();
  if (panes.length < wanted.length) panes.push(makePane("B", "model2", "version2"));
  byId("panes").replaceChildren(...panes.map((pane) => pane.root));
  byId("panes").classList.toggle("two", panes.length === 2);
  byId("compare").setAttribute("aria-pressed", String(panes.length === 2));
  await Promise.all(panes.map(async (pane, index) => {
    const [model, version] = wanted[index];
    pane.setModels(models);
    if (model) await pane.use(model, version);
    pane.setModels(models);
    if (subject?.blob && pane.takesImages && !camera.isOn) await pane.setImage(subject.blob, flight.signal);
  }));
  const unauthorised = panes.find((pane) => [401, 403].includes(pane.error?.status));
  if (unauthorised) fail(unauthorised.error);
  showInput();
  renderControls();
  render();
}

function showInput() {
  const [{ task, metadata, takesImages }] = panes;
  const isTable = task === "tabular";
  byId("image-input").hidden = isTable || (metadata !== null && !takesImages);
  byId("row-input").hidden = !isTable;
  if (isTable && byId("row-input").dataset.model !== metadata.name) {
    byId("row-input").dataset.model = metadata.name;
    makeRowForm(byId("row-input"), metadata, (rows) => useSubject({ rows }));
  }
  if ((takesImages && subject?.rows) || (isTable && subject?.blob)) {
    subject = null;
    setStatus(""); // of what the model before returned
  }
  if (isTable) camera.stop();
}

// ---- requests

async function useSubject(next) {
  stopCamera();
  fail(null);
  cancel();
  subject = next;
  const fitting = panes.filter((pane) => next.blob && pane.takesImages);
  await Promise.all(fitting.map((pane) => pane.setImage(next.blob, flight.signal)));
  await run({ again: true });
}

async function run(options = {}) {
  if (!subject || camera.isOn) return render();
  cancel();
  const { signal } = flight;
  const fitting = panes.filter((pane) => (subject.blob ? pane.takesImages : pane.task === "tabular"));
  await Promise.all(fitting.map(async (pane) => {
    await pane.run(subject, settings, signal, options);
    if (!signal.aborted) render();
  }));
  if (signal.aborted) return;
  setStatus(notice + resultWords(panes));
  notice = "";
}

function cancel() {
  flight.abort();
  flight = new AbortController();
}

/** A frame of the camera, to all panes; false ends the camera. */
async function sendFrame(frame) {
  if (panes.some((pane) => !pane.metadata && !pane.missing)) return true; // another model was chosen just now
  const { signal } = flight;
  const next = { blob: frame.blob, name: "camera.jpg" };
  const started = performance.now();
  const done = await Promise.all(panes.filter((pane) => pane.takesImages).map(async (pane) => {
    const isThere = await pane.run(next, settings, signal, { exact: true, isLive: true });
    if (isThere && camera.isOn) await pane.stage.setImage(frame.blob);
    return isThere;
  }));
  if (!camera.isOn) return false;
  subject = next;
  render();
  const ms = performance.now() - started;
  const { sent, dropped } = camera.counts;
  setStatus(`Camera: ${(1000 / ms).toFixed(1)} images/s, ${ms.toFixed(0)} ms each; ${sent} sent, ${dropped} frames dropped`);
  const isOn = done.length > 0 && done.every(Boolean);
  if (!isOn) stopCamera();
  return isOn;
}

async function startCamera() {
  cancel();
  fail(null);
  try {
    for (const pane of panes) {
      pane.result = pane.shown = pane.map = null;
      pane.stage.setNote("");
    }
    await camera.start();
  } catch (error) {
    fail(error);
  }
  byId("camera").setAttribute("aria-pressed", String(camera.isOn));
}

function stopCamera() {
  if (camera.isOn) {
    camera.stop();
    setStatus("The camera is off; the last image stays.");
  }
  byId("camera").setAttribute("aria-pressed", "false");
}

// ---- what is shown

function showBusy() {
  const isBusy = panes.some((pane) => pane.isBusy) && !camera.isOn;
  byId("cancel").hidden = !isBusy;
  if (isBusy) setStatus("Waiting for the server…");
}

function render() {
  for (const pane of panes) pane.render(settings);
  renderExport(panes[0], settings, subject);
}

/** Once before the next frame, however many changes a slider makes. */
function renderSoon() {
  cancelAnimationFrame(frame);
  frame = requestAnimationFrame(render);
}

/** The tasks of the other models: for the pickers, and the classifiers of the second step. */
async function learn() {
  if (!(await learnTasks(models))) return;
  for (const pane of panes) pane.setModels(models);
  renderControls();
}

function renderControls() {
  const classifiers = [...models.keys()].filter((name) => settings.then === name || taskOf(name) === "classify");
  const [{ task, metadata }] = panes;
  makeControls(byId("settings"), { task, names: classNames(metadata), classifiers }, settings, change);
}

function classNames(metadata) {
  const { names = [], class_ids: ids = [] } = metadata?.parameters ?? {};
  return names.map((name, index) => name || String(ids[index]));
}

function change(changes) {
  Object.assign(settings, changes);
  keep();
  renderSoon();
  clearTimeout(pending);
  pending = setTimeout(() => run(), "then" in changes || "mask" in changes ? 0 : DEBOUNCE_MS);
}

function keep() {
  history.replaceState(null, "", `#${writeSettings(settings)}`);
}

// ---- the page

byId("compare").addEventListener("click", () => {
  choose({ model2: settings.model2 ? "" : settings.model, version2: "" });
});
byId("cancel").addEventListener("click", stop);
byId("camera").addEventListener("click", () => (camera.isOn ? stopCamera() : startCamera()));
addEventListener("keydown", (event) => event.key === "Escape" && stop());
addEventListener("hashchange", () => {
  settings = readSettings(location.hash);
  if (!settings.model) settings.model = bestStart();
  usePanes().then(() => run());
});
document.addEventListener("visibilitychange", () => (document.hidden ? stopCamera() : refresh()));

function stop() {
  stopCamera();
  const isBusy = panes.some((pane) => pane.isBusy);
  cancel();
  if (isBusy) setStatus("Cancelled.");
}

async function useKey() {
  for (const pane of panes) pane.error = null;
  fail(null);
  await refresh();
  await usePanes();
  learn();
  run();
}

connectSources(useSubject, fail);
connectKey(useKey);
await refresh();
await learn();
setInterval(() => document.hidden || refresh(), POLL_MS);
