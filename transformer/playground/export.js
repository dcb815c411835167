// Buttons that save the results, and the code of the request.

import { apiKey } from "./api.js";
import { byId, element } from "./dom.js";
import { save, toCoco, toJson, toYolo } from "./downloads.js";
import { FINDS_OBJECTS, TAKES_IMAGES } from "./models.js";
import { parametersOf } from "./predict.js";
import { exampleRows } from "./rows.js";
import { snippets } from "./snippets.js";

let chosen = "curl";

/** @param {import("./pane.js").Pane} pane @param {import("./settings.js").Settings} settings @param {any} subject */
export function renderExport(pane, settings, subject) {
  byId("export").hidden = !pane.metadata;
  if (!pane.metadata) return;
  byId("downloads").replaceChildren(...downloads(pane, subject));
  renderCode(pane, settings, subject);
}

function downloads(pane, subject) {
  const { result, shown, task, metadata } = pane;
  if (!result) return [element("p", { class: "faint" }, "Results can be downloaded here.")];
  const file = subject?.name ?? "row";
  const stem = file.replace(/\.[^.]*$/, "");
  const button = (words, act) => element("button", { type: "button", onclick: act }, words);
  const text = (words, make, name, type) => button(words, () => save(make(), name, type));
  const finds = FINDS_OBJECTS.includes(task);
  const hasRle = result.requested.mask === "rle";
  return [
    text("JSON", () => toJson(result, shown.predictions), `${stem}.json`, "application/json"),
    text("Whole response", () => JSON.stringify(result.document, null, 1), `${stem}.response.json`, "application/json"),
    finds && text("COCO", () => toCoco(result, shown.predictions, { file, metadata }), `${stem}.coco.json`, "application/json"),
    finds && !hasRle && text("YOLO", () => toYolo(result, shown.predictions, metadata), `${stem}.txt`, "text/plain"),
    task === "classify" && text("YOLO", () => toYolo(result, shown.predictions, metadata), `${stem}.txt`, "text/plain"),
    TAKES_IMAGES.includes(task) && button("Annotated PNG", async () => save(await pane.stage.toPng(), `${stem}.annotated.png`, "image/png")),
  ].filter(Boolean);
}

function renderCode(pane, settings, subject) {
  const { model, version, task, metadata, result, shown } = pane;
  const base = new URL(".", document.baseURI).href;
  const own = !TAKES_IMAGES.includes(task) && task !== "tabular";
  const rows = task === "tabular" ? (subject?.rows ?? [exampleRows(metadata)[0]]) : null;
  const file = rows || own ? "" : (subject?.name ?? "image.jpg");
  const parameters = own ? {} : withoutDefaults(parametersOf(task, settings, true), task);
  const made = snippets({ base, model, version, task, parameters, file, rows, hasKey: apiKey() !== "", metadata });
  if (result) made.push({ name: "response", code: "" });
  const current = made.find(({ name }) => name === chosen) ?? made[0];
  if (current.name === "response") current.code = toJson(result, shown.predictions); // of 1,000 objects it takes a while
  const code = element("pre", { tabindex: "0", role: "region", "aria-label": `${current.name}, code` }, current.code.slice(0, 60_000));
  const tabs = made.map(({ name }) => element("button", { type: "button", "aria-pressed": String(name === current.name), onclick: () => {
    chosen = name;
    renderCode(pane, settings, subject);
  } }, name));
  const copy = element("button", { type: "button", class: "primary", onclick: async () => {
    copy.textContent = (await copied(current.code, code)) ? "Copied" : "Selected: press Ctrl+C";
  } }, "Copy");
  byId("code").replaceChildren(element("div", { class: "chips" }, tabs), code, copy);
}

/** Copy text; a page without https may only select it. */
async function copied(text, place) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    getSelection().selectAllChildren(place);
    return false;
  }
}

const STANDARD = { iou: 0.7, max_detections: 300, mask: "polygon", keypoint_confidence: 0, top_k: 5, depth_scale: 0.001 };

/** Parameters that a request needs: confidence always, since people look for it there. */
function withoutDefaults(parameters, task) {
  return Object.fromEntries(Object.entries(parameters).filter(([name, value]) => STANDARD[name] !== value && !(task === "classify" && name === "confidence" && value === 0)));
}
