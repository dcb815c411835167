// Objects on a canvas: boxes, masks, keypoints and oriented boxes, in the colours of the server's annotated image.

import { maskPath, maskImage } from "./masks.js";

const COLOURS = [
  "#e6194b", "#3cb44b", "#0082c8", "#f58230", "#911eb4", "#008080", "#f032e6", "#808000", "#aa6e28", "#800000", "#000080", "#5a5a5a",
];
const PERSON = [
  "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow", "right_elbow",
  "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle",
];
const PERSON_LINES = [
  [15, 13], [13, 11], [16, 14], [14, 12], [11, 12], [5, 11], [6, 12], [5, 6], [5, 7], [6, 8], [7, 9], [8, 10], [1, 2], [0, 1],
  [0, 2], [1, 3], [2, 4], [3, 5], [4, 6],
];
const LEAST_VISIBILITY = 0.25; // of keypoints that are drawn, as on the server

/** The colour of a class, and black or white on it. */
export function colourOf(classId) {
  const [red, green, blue] = rgbOf(classId);
  const colour = COLOURS[classId % COLOURS.length];
  return { colour, onColour: 0.299 * red + 0.587 * green + 0.114 * blue > 128 ? "#000000" : "#ffffff" };
}

/** Red, green and blue of a class, from 0 to 255. */
export function rgbOf(classId) {
  const colour = COLOURS[classId % COLOURS.length];
  return [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
}

/** The words beside an object. */
export function labelOf(prediction) {
  const second = prediction.classification ? ` → ${prediction.classification.top} ${percent(prediction.classification.confidence)}` : "";
  return `${prediction.class} ${percent(prediction.confidence)}${second}`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share > 0.9995 || share < 0.0005 ? 0 : 1)} %`;
}

/**
 * Draw predictions; the weakest first, so that the best are on top.
 * @param {CanvasRenderingContext2D} context in pixels of the canvas
 * @param {any[]} predictions in pixels of the image
 * @param {{scale: number, pen: number, opacity: number, labels: boolean, hovered?: number}} how
 *   `scale`: pixels of the canvas for one of the image; `pen`: of a line; `hovered`: index of the one that stands out
 */
export function drawObjects(context, predictions, how) {
  context.lineJoin = "round";
  const order = predictions.map((_, index) => index).reverse();
  const hovered = how.hovered ?? -1;
  if (hovered >= 0) order.push(...order.splice(order.indexOf(hovered), 1));
  for (const index of order) {
    context.globalAlpha = hovered >= 0 && hovered !== index ? 0.35 : 1;
    drawObject(context, predictions[index], { ...how, pen: hovered === index ? how.pen * 1.8 : how.pen });
  }
  context.globalAlpha = 1;
  if (!how.labels) {
    if (hovered >= 0) drawLabel(context, predictions[hovered], how);
    return;
  }
  for (const index of order) {
    context.globalAlpha = hovered >= 0 && hovered !== index ? 0.35 : 1;
    drawLabel(context, predictions[index], how);
  }
  context.globalAlpha = 1;
}

function drawObject(context, prediction, how) {
  const { colour } = colourOf(prediction.class_id);
  context.strokeStyle = colour;
  context.fillStyle = colour;
  context.lineWidth = how.pen;
  if (prediction.mask_format) drawMask(context, prediction, how);
  else context.stroke(outlineOf(prediction, how.scale));
  if (prediction.keypoints) drawKeypoints(context, prediction.keypoints, how);
}

function drawMask(context, prediction, { scale, opacity }) {
  const alpha = context.globalAlpha;
  context.globalAlpha = alpha * opacity;
  if (prediction.mask_format === "rle") {
    const { canvas, left, top } = maskImage(prediction, rgbOf(prediction.class_id));
    context.imageSmoothingEnabled = false;
    context.drawImage(canvas, left * scale, top * scale, canvas.width * scale, canvas.height * scale);
    context.globalAlpha = alpha;
    return;
  }
  const path = maskPath(prediction, scale);
  context.fill(path);
  context.globalAlpha = alpha;
  context.stroke(path);
}

/** The box of an object, upright or oriented. */
export function outlineOf(prediction, scale) {
  const path = new Path2D();
  const corners = prediction.corners ?? cornersOf(prediction.box);
  for (const { x, y } of corners) path.lineTo(x * scale, y * scale);
  path.closePath();
  return path;
}

export function cornersOf({ x1, y1, x2, y2 }) {
  return [{ x: x1, y: y1 }, { x: x2, y: y1 }, { x: x2, y: y2 }, { x: x1, y: y2 }];
}

function drawKeypoints(context, keypoints, { scale, pen }) {
  const seen = new Map(keypoints.filter((each) => each.confidence >= LEAST_VISIBILITY).map((each) => [each.class_id, each]));
  const isPerson = [...seen.values()].every((each) => each.class === PERSON[each.class_id]);
  for (const [one, other] of isPerson ? PERSON_LINES : []) {
    const [from, to] = [seen.get(one), seen.get(other)];
    if (!from || !to) continue;
    context.strokeStyle = COLOURS[other % COLOURS.length];
    context.beginPath();
    context.moveTo(from.x * scale, from.y * scale);
    context.lineTo(to.x * scale, to.y * scale);
    context.stroke();
  }
  context.strokeStyle = "#ffffff";
  for (const point of seen.values()) {
    context.fillStyle = COLOURS[point.class_id % COLOURS.length];
    context.beginPath();
    context.arc(point.x * scale, point.y * scale, 2.2 * pen, 0, 2 * Math.PI);
    context.fill();
    context.lineWidth = pen / 2;
    context.stroke();
  }
}

function drawLabel(context, prediction, { scale, pen }) {
  const text = labelOf(prediction);
  const size = Math.max(6 * pen, 1);
  const { colour, onColour } = colourOf(prediction.class_id);
  const corners = prediction.corners ?? cornersOf(prediction.box);
  const top = corners.reduce((highest, each) => (each.y < highest.y ? each : highest));
  context.font = `600 ${size}px system-ui, sans-serif`;
  const width = context.measureText(text).width + size * 0.6;
  const height = size * 1.35;
  const x = Math.max(0, Math.min(top.x * scale - pen / 2, context.canvas.width - width));
  const y = Math.max(0, top.y * scale - height);
  context.fillStyle = colour;
  context.fillRect(x, y, width, height);
  context.fillStyle = onColour;
  context.textBaseline = "middle";
  context.fillText(text, x + size * 0.3, y + height / 2 + size * 0.04);
}

/** The frame of the part of an image that a classifier saw. */
export function drawCrop(context, { x1, y1, x2, y2 }, { scale, pen }) {
  context.strokeStyle = COLOURS[2];
  context.lineWidth = pen;
  context.setLineDash([4 * pen, 3 * pen]);
  context.strokeRect(x1 * scale + pen / 2, y1 * scale + pen / 2, (x2 - x1) * scale - pen, (y2 - y1) * scale - pen);
  context.setLineDash([]);
}

/** The index of the smallest object below a point of the image, -1 for none. */
export function objectAt(context, predictions, { x, y }) {
  let found = -1;
  let smallest = Infinity;
  predictions.forEach((each, index) => {
    const area = each.width * each.height;
    if (area < smallest && each.box && context.isPointInPath(outlineOf(each, 1), x, y)) [found, smallest] = [index, area];
  });
  return found;
}
