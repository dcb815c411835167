// The image of a pane with what is drawn over it: sharp on any screen, of any size.

import { element } from "./dom.js";
import { drawCrop, drawObjects, objectAt } from "./draw.js";

const MOST_PIXELS = 40_000_000; // of a canvas

export class Stage {
  /** @param {(index: number) => void} onHover index of the prediction below the pointer, -1 for none */
  constructor(onHover) {
    this.image = element("img", { alt: "", hidden: true });
    this.canvas = element("canvas", { role: "img", "aria-label": "No result" });
    const invitation = element("p", { class: "invitation faint" }, "Drop an image here, paste one (Ctrl+V), or choose one above.");
    this.frame = element("div", { class: "stage" }, this.image, this.canvas, invitation);
    this.note = element("p", { class: "faint", hidden: true });
    this.root = element("div", {}, this.frame, this.note);
    this.url = "";
    this.scene = null;
    this.size = { width: 0, height: 0 };
    this.decodeMs = 0;
    new ResizeObserver(() => this.draw()).observe(this.frame);
    this.canvas.addEventListener("pointermove", (event) => onHover(this.#indexAt(event)));
    this.canvas.addEventListener("pointerdown", (event) => onHover(this.#indexAt(event)));
    this.canvas.addEventListener("pointerleave", () => onHover(-1));
  }

  /** Show an image; false where the browser cannot, which leaves an empty field. */
  async setImage(blob) {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = URL.createObjectURL(blob);
    const began = performance.now();
    const image = element("img", { alt: "", src: this.url });
    let isShown = true;
    try {
      await image.decode();
    } catch {
      isShown = false;
    }
    this.decodeMs += performance.now() - began;
    this.image.replaceWith(image);
    this.image = image;
    this.image.hidden = !isShown;
    this.size = { width: image.naturalWidth, height: image.naturalHeight };
    this.#fit();
    return isShown;
  }

  /** @param {null | {size: {width: number, height: number}, predictions: any[], task: string, map: HTMLCanvasElement | null,
   *   crop: any, opacity: number, labels: boolean, hovered: number, words: string}} scene */
  setScene(scene) {
    this.scene = scene;
    if (scene) {
      this.size = scene.size;
      this.canvas.setAttribute("aria-label", scene.words);
    }
    this.#fit();
    this.draw();
  }

  /** The time that decoding took since this was last called, in ms. */
  takeDecodeMs() {
    const taken = this.decodeMs;
    this.decodeMs = 0;
    return taken;
  }

  setNote(words) {
    this.note.hidden = !words;
    this.note.textContent = words;
  }

  #fit() {
    const { width, height } = this.size;
    this.frame.classList.toggle("filled", width > 0);
    this.frame.style.aspectRatio = width ? `${width} / ${height}` : "";
    this.frame.style.maxWidth = width ? `calc(${width / height} * var(--stage-height))` : "";
  }

  draw() {
    const { clientWidth, clientHeight } = this.frame;
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
    if (this.canvas.width !== width) this.canvas.width = width;
    if (this.canvas.height !== height) this.canvas.height = height;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    if (this.scene && width) paint(context, this.scene, width / this.scene.size.width, 2 * ratio);
  }

  /** The image with everything drawn, in its own resolution. @returns {Promise<Blob>} */
  async toPng() {
    const { width, height } = this.size;
    const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (width * height)));
    const canvas = Object.assign(document.createElement("canvas"), {
      width: Math.round(width * scale),
      height: Math.round(height * scale),
    });
    const context = canvas.getContext("2d");
    if (!this.image.hidden) context.drawImage(this.image, 0, 0, canvas.width, canvas.height);
    const pen = Math.max(1.5, Math.max(canvas.width, canvas.height) / 400);
    if (this.scene) paint(context, { ...this.scene, hovered: -1 }, scale, pen);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  #indexAt(event) {
    if (!this.scene?.predictions.length) return -1;
    const { left, top, width } = this.canvas.getBoundingClientRect();
    const scale = width / this.scene.size.width;
    const point = { x: (event.clientX - left) / scale, y: (event.clientY - top) / scale };
    return objectAt(this.canvas.getContext("2d"), this.scene.predictions, point);
  }
}

function paint(context, scene, scale, pen) {
  if (scene.map) {
    context.globalAlpha = scene.opacity;
    context.imageSmoothingEnabled = false;
    context.drawImage(scene.map, 0, 0, scene.size.width * scale, scene.size.height * scale);
    context.globalAlpha = 1;
  } else if (scene.crop?.x2) drawCrop(context, scene.crop, { scale, pen });
  else if (scene.predictions[0]?.box) drawObjects(context, scene.predictions, { ...scene, scale, pen });
}
