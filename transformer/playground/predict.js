// One request to /predict, for more than what is shown: filter.js chooses among its results without another request.

import { request } from "./api.js";
import { FINDS_OBJECTS } from "./models.js";

/** The lowest confidence of a request; masks of weak objects cost the server most. */
const LOWEST = { segment: 0.05 };
const LOWEST_OTHERWISE = 0.01;
const MOST_DETECTIONS = 1000;
const MOST_CLASSES = 1000;

/**
 * The parameters of a request, by name; `classes` is a list.
 * @param {string} task
 * @param {import("./settings.js").Settings} settings
 * @param {boolean} exact whether for what is shown alone, else for whatever the page may be requested to show next
 */
export function parametersOf(task, settings, exact) {
  const classes = exact && settings.classes ? { classes: settings.classes } : {};
  if (task === "classify") {
    return { top_k: exact ? settings.top_k : MOST_CLASSES, confidence: exact ? settings.probability : 0, ...classes };
  }
  if (task === "semantic") return classes;
  if (task === "depth") return { depth_scale: settings.depth_scale };
  if (!FINDS_OBJECTS.includes(task)) return {};
  // A second step classifies every object of the response, so it gets none that is not shown.
  const whole = exact || settings.then !== "";
  const lowest = LOWEST[task] ?? LOWEST_OTHERWISE;
  return {
    confidence: whole ? settings.confidence : Math.min(lowest, settings.confidence),
    iou: settings.iou,
    max_detections: whole ? settings.max_detections : MOST_DETECTIONS,
    ...(task === "segment" && { mask: settings.mask }),
    ...(task === "pose" && exact && { keypoint_confidence: settings.keypoint_confidence }),
    ...(settings.then && { then: settings.then }),
    ...classes,
  };
}

/** The path and query of a request, relative to the page. */
export function pathOf(model, version, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const each of Array.isArray(value) ? value : [value]) query.append(name, String(each));
  }
  const versioned = version ? `/versions/${encodeURIComponent(version)}` : "";
  const text = query.toString();
  return `predict/${encodeURIComponent(model)}${versioned}${text ? `?${text}` : ""}`;
}

/**
 * Send an image or rows.
 * @param {{model: string, version: string, task: string}} choice
 * @param {{blob?: Blob, rows?: unknown[][]}} subject
 * @param {object} parameters
 * @param {AbortSignal} signal
 * @returns {Promise<{document: any, task: string, requested: any, wall_ms: number, bytes: number,
 *   client: {read: number, decode?: number, draw?: number}}>} `client`: ms of the page itself; the pane adds two
 */
export async function predict(choice, subject, parameters, signal) {
  const body = subject.blob ?? JSON.stringify(subject.rows);
  const type = subject.blob ? "application/octet-stream" : "application/json";
  const headers = { "Content-Type": type, Accept: "application/json" };
  const start = performance.now();
  const response = await request(pathOf(choice.model, choice.version, parameters), { method: "POST", headers, body, signal });
  const text = await response.text();
  const received = performance.now();
  const document = JSON.parse(text);
  const client = { read: performance.now() - received };
  return { document, task: document.model.task, requested: parameters, wall_ms: received - start, client, bytes: text.length };
}

/** The image as the server decodes it, where the browser cannot show it: nothing has a confidence above 1. */
export async function decodedByServer(choice, blob, signal) {
  const path = pathOf(choice.model, choice.version, { confidence: 1, max_detections: 1 });
  const headers = { "Content-Type": "application/octet-stream", Accept: "image/jpeg" };
  return (await request(path, { method: "POST", headers, body: blob, signal })).blob();
}
