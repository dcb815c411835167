// The results as a table, or as bars of classes. Rows and boxes are marked together; the arrow keys go through the rows.

import { element } from "./dom.js";
import { colourOf, percent } from "./draw.js";

/** @param {{document: any, task: string}} result @param {any[]} predictions
 * @param {string} place of the pane @param {(index: number) => void} hover */
export function resultTable({ document, task }, predictions, place, hover) {
  if (task === "classify") return bars(predictions.map((each) => [each.class, each.confidence, each.class_id]));
  if (task === "semantic") return bars(predictions.map((each) => [each.class, each.pixel_ratio, each.class_id]));
  if (task === "depth") return element("p", {}, `From ${document.min} m (red) to ${document.max} m (blue).`);
  if (task === "tabular") return rowsOf(predictions);
  if (!predictions.length) return element("p", { class: "faint" }, "Nothing is above this confidence. Lower it, or choose other classes.");
  const head = ["", "class", "confidence", "x", "y", "width", "height", ...extraNames(task)];
  const body = element("tbody", {}, predictions.map((each, index) => objectRow(each, index, task, hover)));
  body.addEventListener("keydown", walk);
  body.addEventListener("mouseleave", () => hover(-1));
  body.addEventListener("focusout", () => hover(-1));
  return element("div", { class: "scroll objects", tabindex: "0", role: "region", "aria-label": `Objects of ${document.model.name} ${document.model.version}, ${place}` },
    element("table", {}, element("thead", {}, element("tr", {}, head.map((name) => element("th", { scope: "col", class: name && name !== "class" ? "number" : null }, name || element("span", { class: "visually-hidden" }, "colour"))))), body));
}

function extraNames(task) {
  return { obb: ["rotation"], pose: ["keypoints"], segment: ["outline"] }[task] ?? [];
}

function objectRow(prediction, index, task, hover) {
  const box = prediction.rotated_box ?? prediction;
  const second = prediction.classification && element("span", { class: "faint" }, ` → ${prediction.classification.top} ${percent(prediction.classification.confidence)}`);
  const extra = {
    obb: () => `${((prediction.rotated_box.rotation * 180) / Math.PI).toFixed(1)}°`,
    pose: () => String(prediction.keypoints.length),
    segment: () => (prediction.points ? `${prediction.points.length} points` : (prediction.mask_format ?? "none")),
  }[task];
  const numbers = [prediction.confidence.toFixed(3), ...[box.x, box.y, box.width, box.height].map((each) => each.toFixed(1)), ...(extra ? [extra()] : [])];
  const row = element("tr", { tabindex: index ? "-1" : "0", "data-index": String(index), onmouseenter: () => hover(index), onfocus: () => hover(index) },
    element("td", {}, swatch(prediction.class_id)), element("td", {}, prediction.class, second), numbers.map((each) => element("td", { class: "number" }, each)));
  return row;
}

function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  const row = event.target.closest("tr");
  const next = step === 1 ? row?.nextElementSibling : step === -1 ? row?.previousElementSibling : null;
  if (!next) return;
  event.preventDefault();
  row.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function rowsOf(predictions) {
  const title = (index) => predictions.length > 1 && element("h2", {}, `Row ${index + 1}`);
  return element("div", { class: "row-results" }, predictions.map((each, row) => element("div", {}, title(row),
    each.class === undefined
      ? element("p", { class: "value" }, String(each.value))
      : element("div", {}, element("p", {}, element("b", {}, each.class), ` ${percent(each.confidence)}`),
        bars(Object.entries(each.probabilities).map(([name, share], index) => [name, share, index]).sort((one, other) => other[1] - one[1]))))));
}

/** @param {[string, number, number][]} shares name, share and class */
function bars(shares) {
  if (!shares.length) return element("p", { class: "faint" }, "No class is above this probability. Lower it, or choose other classes.");
  return element("ul", { class: "bars" }, shares.map(([name, share, classId]) => {
    const filled = element("span", { class: "filled" });
    filled.style.width = `${100 * share}%`;
    filled.style.background = colourOf(classId).colour;
    return element("li", {}, element("span", { class: "name" }, name), element("span", { class: "track" }, filled), element("span", { class: "number" }, percent(share)));
  }));
}

function swatch(classId) {
  const made = element("span", { class: "dot" });
  made.style.background = colourOf(classId).colour;
  return made;
}
