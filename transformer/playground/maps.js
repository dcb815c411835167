// Maps of classes and of depth: PNGs of one channel in 8 or 16 bits, which a canvas would round to 8, as images.

import { rgbOf } from "./draw.js";

/** @returns {Promise<{width: number, height: number, values: Uint8Array | Uint16Array}>} of a PNG in base64 */
export async function readGrey(base64) {
  const bytes = Uint8Array.from(atob(base64), (each) => each.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const [width, height, bits] = [view.getUint32(16), view.getUint32(20), bytes[24]];
  if (bytes[25] !== 0 || bytes[28] !== 0 || bits < 8) throw new Error("The map is not a grey PNG of 8 or 16 bits.");
  const parts = [];
  for (let at = 8; at < bytes.length; at += 12 + view.getUint32(at)) {
    if (view.getUint32(at + 4) === 0x49444154) parts.push(bytes.subarray(at + 8, at + 8 + view.getUint32(at)));
  }
  const inflated = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const rows = new Uint8Array(await new Response(inflated).arrayBuffer());
  unfilter(rows, height, (width * bits) / 8, bits / 8);
  const stride = (width * bits) / 8;
  const values = bits === 16 ? new Uint16Array(width * height) : new Uint8Array(width * height);
  for (let y = 0, to = 0; y < height; y++) {
    for (let x = 0, from = y * (stride + 1) + 1; x < width; x++, from += bits / 8) {
      values[to++] = bits === 16 ? (rows[from] << 8) | rows[from + 1] : rows[from];
    }
  }
  return { width, height, values };
}

/** Undo the filter of each row (PNG, section 9), in place. */
function unfilter(rows, height, stride, step) {
  for (let y = 0; y < height; y++) {
    const start = y * (stride + 1);
    const kind = rows[start];
    for (let index = 0, at = start + 1; index < stride; index++, at++) {
      const left = index >= step ? rows[at - step] : 0;
      const up = y ? rows[at - stride - 1] : 0;
      const corner = y && index >= step ? rows[at - stride - 1 - step] : 0;
      if (kind === 1) rows[at] += left;
      else if (kind === 2) rows[at] += up;
      else if (kind === 3) rows[at] += (left + up) >> 1;
      else if (kind === 4) rows[at] += paeth(left, up, corner);
    }
  }
}

function paeth(left, up, corner) {
  const [toLeft, toUp, toCorner] = [up - corner, left - corner, left + up - 2 * corner].map(Math.abs);
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

/** A canvas with each class in its colour; `shown` says which values are. */
export function paintClasses({ width, height, values }, shown) {
  return paint(width, height, values, (value) => (shown(value) ? rgbOf(value) : null));
}

/** A canvas from red (near) to blue (far). */
export function paintDepth({ width, height, values }, { scale, min, max }) {
  return paint(width, height, values, (value) => (value ? heat((max - value * scale) / Math.max(max - min, 1e-9)) : null));
}

function paint(width, height, values, colour) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  const known = new Map();
  values.forEach((value, index) => {
    let rgb = known.get(value);
    if (rgb === undefined) known.set(value, (rgb = colour(value)));
    if (rgb) pixels.data.set([...rgb, 255], 4 * index);
  });
  context.putImageData(pixels, 0, 0);
  return canvas;
}

/** From blue (0) over green to red (1). */
function heat(share) {
  const near = Math.min(Math.max(share, 0), 1);
  return [1.5 - Math.abs(4 * near - 3), 1.5 - Math.abs(4 * near - 2), 1.5 - Math.abs(4 * near - 1)].map((each) =>
    Math.round(255 * Math.min(Math.max(each, 0), 1)),
  );
}
