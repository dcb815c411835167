// One model's place in the page: its picker, the image with its results, the table, the time.

import { element, show } from "./dom.js";
import { countClasses, covers, limitWords, narrow } from "./filter.js";
import { paintClasses, paintDepth, readGrey } from "./maps.js";
import { describe, TAKES_IMAGES, taskOf } from "./models.js";
import { decodedByServer, parametersOf, predict } from "./predict.js";
import { countWords } from "./results.js";
import { Stage } from "./stage.js";
import { nextStep, stateWords } from "./states.js";
import { resultTable } from "./table.js";
import { timeBar } from "./timing.js";

/**
 * @typedef {{choose: (model: string, version: string) => void, hover: (index: number) => void, exact: () => void,
 *   changed: () => void}} Listeners
 */
export class Pane {
  /** @param {string} id @param {Listeners} listeners */
  constructor(id, listeners) {
    this.listeners = listeners;
    this.id = id;
    this.model = this.version = "";
    this.metadata = this.missing = this.result = this.shown = this.error = this.map = null;
    this.isBusy = false;
    /** What the last request sent. @type {object | null} */
    this.subject = null;
    this.stage = new Stage(listeners.hover);
    this.modelPicker = element("select", { id: `model-${id}`, onchange: () => this.#choose("") });
    this.versionPicker = element("select", { id: `version-${id}`, onchange: () => this.#choose(this.versionPicker.value) });
    this.facts = element("p", { class: "facts" });
    this.message = element("div", { role: "alert", hidden: true });
    this.doubts = element("div", { hidden: true });
    this.output = element("div", { class: "output" });
    this.root = element("section", { class: "panel pane", "aria-label": `Model ${id}` },
      element("div", { class: "picker" },
        element("label", { for: `model-${id}` }, "Model"), this.modelPicker,
        element("label", { for: `version-${id}` }, "Version"), this.versionPicker),
      this.facts, this.message, this.stage.root, this.doubts, this.output);
  }

  get task() {
    return this.metadata?.parameters.task ?? "";
  }

  get takesImages() {
    return TAKES_IMAGES.includes(this.task);
  }

  #choose(version) {
    this.listeners.choose(this.modelPicker.value, version);
  }

  /** Fill the pickers. @param {Map<string, import("./models.js").Entry>} models */
  setModels(models) {
    const entry = models.get(this.model);
    const name = ({ name, state }) => {
      const words = [taskOf(name), state !== "serving" && stateWords(state)].filter(Boolean).join(", ");
      return words ? `${name} (${words})` : name;
    };
    fill(this.modelPicker, [...models.values()].map((each) => [each.name, name(each)]), this.model);
    const versions = (entry?.versions ?? []).map(({ version, state }) => [version, state === "serving" ? version : `${version} (${stateWords(state)})`]);
    const newest = entry?.serving.at(-1);
    fill(this.versionPicker, [["", newest ? `newest (${newest})` : "newest"], ...versions], this.version);
    this.entry = entry;
    this.#writeFacts();
  }

  /** Use a model; its metadata says what it takes. */
  async use(model, version) {
    if (model !== this.model || version !== this.version) this.result = this.shown = this.map = this.error = this.metadata = null;
    Object.assign(this, { model, version });
    const [metadata, missing] = await describe(model, version).then((found) => [found, null], (error) => [null, error]);
    if (model !== this.model || version !== this.version) return; // another one was chosen meanwhile
    if (this.missing) this.error = null;
    Object.assign(this, { metadata, missing, error: missing ?? this.error });
    this.#writeFacts();
    show(this.message, this.error);
  }

  /**
   * Send the subject, unless the last response has all that is shown.
   * @returns {Promise<boolean>} whether there is a result
   */
  async run(subject, settings, signal, { exact = false, again = false, isLive = false } = {}) {
    if (!this.metadata) return false;
    if (!again && !exact && this.result && this.subject === subject && covers(this.result, settings)) return true;
    if (!isLive) this.#setBusy(true);
    try {
      const parameters = parametersOf(this.task, settings, exact);
      const result = await predict({ ...this, task: this.task }, subject, parameters, signal);
      const received = performance.now();
      this.map = await readMap(result);
      result.client.read += performance.now() - received;
      Object.assign(this, { result, subject, error: null });
    } catch (error) {
      if (error.name === "AbortError") return false;
      Object.assign(this, { result: null, subject: null, map: null, error });
    } finally {
      if (!isLive) this.#setBusy(false);
    }
    show(this.message, this.error);
    return this.error === null;
  }

  /** Show an image before its result is there; one that the browser cannot show comes from the server. */
  async setImage(blob, signal) {
    this.result = this.shown = this.map = null;
    this.stage.setScene(null);
    this.stage.setNote("");
    if (await this.stage.setImage(blob)) return;
    if (!["detect", "segment", "pose", "obb"].includes(this.task)) {
      this.stage.setNote("The browser cannot show this format; the server may read it all the same.");
      return;
    }
    try {
      await this.stage.setImage(await decodedByServer(this, blob, signal));
      this.stage.setNote("The browser cannot show this format; this is the image as the server decoded it.");
    } catch {
      this.stage.setNote("The browser cannot show this file.");
    }
  }

  /** Show what the settings leave of the result. */
  render(settings) {
    const { result } = this;
    this.stage.root.hidden = !this.takesImages;
    this.shown = result && narrow(result, settings);
    this.output.hidden = !result;
    show(this.doubts, null);
    if (!result) {
      this.stage.setScene(null);
      return;
    }
    const { predictions, doubts, cut } = this.shown;
    const began = performance.now();
    this.#draw(settings);
    const limits = cut ? { ...result.document.limits_reached, max_detections: settings.max_detections } : {};
    if (doubts.length) this.#doubt(doubts);
    const isFocused = this.output.contains(document.activeElement) && document.activeElement.dataset.index;
    const frame = result.document.crop && element("p", { class: "faint" }, "The dashed frame is what the model saw of the image.");
    this.output.replaceChildren(
      frame ?? "",
      countsOf(result.task, predictions, limits),
      resultTable(result, predictions, this.id, this.listeners.hover));
    result.client.decode ??= this.stage.takeDecodeMs();
    result.client.draw ??= performance.now() - began;
    this.output.prepend(timeBar(result));
    if (isFocused) this.output.querySelector(`[data-index="${isFocused}"]`)?.focus();
  }

  #draw(settings) {
    const { document, task } = this.result;
    if (!document.image) return;
    const { predictions } = this.shown;
    let map = null;
    if (this.map && task === "semantic") {
      const chosen = new Set(predictions.map((each) => each.class));
      map = paintClasses(this.map, (value) => chosen.has(document.class_map[value]));
    } else if (this.map) map = paintDepth(this.map, document);
    const words = `${countWords(predictions.length)} of ${document.model.name}: ` +
      countClasses(predictions ?? []).slice(0, 10).map(([name, count]) => `${name} (${count})`).join(", ");
    const { opacity, labels } = settings;
    this.stage.setScene({ size: document.image, predictions, task, map, crop: document.crop, opacity, labels, hovered: -1, words });
  }

  #doubt(doubts) {
    show(this.doubts, { message: doubts.join(" ") }, "warn");
    this.doubts.append(element("button", { type: "button", onclick: this.listeners.exact }, "Request exactly this"));
  }

  /** Mark a prediction in the image and the table. */
  hover(index) {
    if (this.stage.scene && this.stage.scene.hovered !== index) {
      this.stage.scene.hovered = index;
      this.stage.draw();
    }
    this.output.querySelector(".hovered")?.classList.remove("hovered");
    this.output.querySelector(`[data-index="${index}"]`)?.classList.add("hovered");
  }

  /** The index of the object that lies where another pane's does, -1 for none. */
  indexOf(other) {
    if (!other?.box || !this.shown) return -1;
    const overlaps = this.shown.predictions.map((each) => (each.box ? overlap(each.box, other.box) : 0));
    return overlaps.indexOf(Math.max(...overlaps, 0.3));
  }

  #setBusy(isBusy) {
    this.isBusy = isBusy;
    this.root.setAttribute("aria-busy", String(isBusy));
    this.listeners.changed();
  }

  #writeFacts() {
    const entry = this.entry;
    const chosen = this.version || entry?.serving.at(-1);
    const version = entry?.versions.find((each) => each.version === chosen);
    const task = this.task && element("span", { class: "tag" }, this.task);
    const profile = version?.profile && element("span", {}, `profile ${version.profile}`);
    const state = entry && element("span", { class: entry.state === "serving" ? "good" : "warn" }, stateWords(version?.state ?? entry.state));
    const rejected = (entry?.versions ?? []).filter((each) => each.state === "refused");
    const reasons = rejected.length > 0 && element("details", {},
      element("summary", {}, `${rejected.length} rejected`),
      element("ul", {}, rejected.map((each) => element("li", {},
        element("b", {}, `version ${each.version}: `), each.reason, " ", element("span", { class: "faint" }, nextStep(each.reason))))));
    const error = entry?.error && element("span", { class: "bad" }, entry.error);
    this.facts.replaceChildren(...[task, state, profile, error, reasons].filter(Boolean));
    const isOwn = this.metadata && !this.takesImages && this.task !== "tabular";
    if (isOwn) show(this.message, { message: `${this.model} takes its own tensors, which this page cannot make.`, next: "Send them over v2: the code is below the settings." }, "warn");
  }
}

function fill(picker, options, value) {
  const known = options.some(([each]) => each === value);
  const all = known ? options : [...options, [value, value ? `${value} (unknown)` : "–"]];
  const key = JSON.stringify(all);
  if (picker.dataset.options !== key) {
    picker.replaceChildren(...all.map(([each, words]) => element("option", { value: each }, words)));
    picker.dataset.options = key;
  }
  picker.value = value;
}

/** Intersection over union of two boxes. */
function overlap(one, other) {
  const width = Math.min(one.x2, other.x2) - Math.max(one.x1, other.x1);
  const height = Math.min(one.y2, other.y2) - Math.max(one.y1, other.y1);
  if (width <= 0 || height <= 0) return 0;
  const area = ({ x1, y1, x2, y2 }) => (x2 - x1) * (y2 - y1);
  return (width * height) / (area(one) + area(other) - width * height);
}

async function readMap({ document, task }) {
  const png = task === "semantic" ? document.segmentation_mask : task === "depth" ? document.depth_map : null;
  return png ? readGrey(png) : null;
}

function countsOf(task, predictions, limits) {
  if (["tabular", "classify", "depth", "semantic"].includes(task)) return "";
  const counts = countClasses(predictions).map(([name, count]) => element("li", {}, `${name} `, element("b", {}, String(count))));
  const reached = Object.keys(limits).length > 0 && element("span", { class: "warn" }, ` Limited: ${limitWords(limits)}.`);
  return element("div", { class: "counts" },
    element("h2", {}, `${predictions.length} ${predictions.length === 1 ? "object" : "objects"}`, reached),
    element("ul", { class: "legend" }, counts));
}
