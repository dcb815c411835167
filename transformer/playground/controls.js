// The settings of a task. What the page filters by itself changes at once; what needs the server is marked so.

import { element } from "./dom.js";
import { FINDS_OBJECTS } from "./models.js";

/**
 * Make the controls of a task.
 * @param {HTMLElement} place
 * @param {{task: string, names: string[], classifiers: string[]}} about
 * @param {import("./settings.js").Settings} settings
 * @param {(changes: Partial<import("./settings.js").Settings>) => void} change
 */
export function makeControls(place, about, settings, change) {
  const { task } = about;
  const finds = FINDS_OBJECTS.includes(task);
  const share = { min: 0, max: 1, step: 0.01 };
  const slide = (name, words, range, note = "") => slider(name, words, { ...range, note, value: settings[name] }, (value) => change({ [name]: value }));
  const again = "needs a request";
  place.replaceChildren(...[
    finds && slide("confidence", "Confidence above", share),
    task === "classify" && slide("probability", "Probability from", share),
    finds && slide("max_detections", "Most objects", { min: 1, max: 1000, step: 1 }),
    task === "classify" && slide("top_k", "Most classes", { min: 1, max: Math.min(1000, Math.max(about.names.length, 1)), step: 1 }),
    task === "pose" && slide("keypoint_confidence", "Keypoints from", share),
    (finds || task === "classify" || task === "semantic") && classPicker(about.names, settings, change),
    finds && toggle("labels", "Labels", settings, change),
    ["segment", "semantic", "depth"].includes(task) && slide("opacity", "Opacity", share),
    finds && slide("iou", "Overlap (IoU) up to", share, again),
    task === "segment" && choice("mask", `Masks (${again})`, [["polygon", "outlines"], ["rle", "RLE"], ["none", "none"]], settings, change),
    task === "depth" && choice("depth_scale", `Reach of the map (${again})`, [["0.001", "65 m"], ["0.01", "655 m"]], settings, change, (text) => Number(text)),
    finds && about.classifiers.length > 0 &&
      choice("then", `Classify each object by (${again})`, [["", "–"], ...about.classifiers.map((each) => [each, each])], settings, change),
    !finds && !["classify", "semantic", "depth"].includes(task) && element("p", { class: "faint" }, task ? "This model has none." : "Choose a model."),
  ].filter(Boolean));
}

/** A range and a number of the same value. */
function slider(name, words, { value, min, max, step, note }, change) {
  const shared = { min: String(min), max: String(max), step: String(step), value: String(Math.min(value, max)) };
  const range = element("input", { ...shared, type: "range", id: `set-${name}` });
  const number = element("input", { ...shared, type: "number", "aria-label": words, inputmode: "decimal" });
  range.addEventListener("input", () => {
    number.value = range.value;
    change(Number(range.value));
  });
  number.addEventListener("input", () => {
    if (!number.checkValidity() || number.value === "") return;
    range.value = number.value;
    change(Number(number.value));
  });
  return element("div", { class: "control" },
    element("label", { for: `set-${name}` }, words, note && element("span", { class: "faint" }, ` (${note})`)),
    element("div", { class: "slider" }, range, number));
}

/** @param {(text: string) => unknown} read */
function choice(name, words, options, settings, change, read = (text) => text) {
  const picker = element("select", { id: `set-${name}`, onchange: () => change({ [name]: read(picker.value) }) },
    options.map(([value, text]) => element("option", { value, selected: value === String(settings[name]) }, text)));
  return element("div", { class: "control" }, element("label", { for: `set-${name}` }, words), picker);
}

function toggle(name, words, settings, change) {
  const box = element("input", { type: "checkbox", id: `set-${name}`, checked: settings[name], onchange: () => change({ [name]: box.checked }) });
  return element("div", { class: "control check" }, box, element("label", { for: `set-${name}` }, words));
}

/** Buttons of the classes; none pressed means all. Of many, a field finds some. */
function classPicker(names, settings, change) {
  const unique = [...new Set(names)];
  const chosen = new Set(settings.classes ?? []);
  const press = (button, name) => {
    if (!chosen.delete(name)) chosen.add(name);
    button.setAttribute("aria-pressed", String(chosen.has(name)));
    change({ classes: chosen.size ? [...chosen] : null });
  };
  const buttons = unique.map((name) => {
    const button = element("button", { type: "button", "aria-pressed": String(chosen.has(name)), onclick: () => press(button, name) }, name);
    return button;
  });
  const find = unique.length > 20 && element("input", {
    type: "search", placeholder: "Find a class", "aria-label": "Find a class",
    oninput: (event) => buttons.forEach((button, index) => (button.hidden = !unique[index].toLowerCase().includes(event.target.value.toLowerCase()))),
  });
  const all = element("button", { type: "button", class: "link", onclick: () => {
    chosen.clear();
    for (const button of buttons) button.setAttribute("aria-pressed", "false");
    change({ classes: null });
  } }, "all");
  return element("fieldset", { class: "control" }, element("legend", {}, "Classes (none chosen: all) ", all), find, element("div", { class: "chips" }, buttons));
}
