// Results as files: JSON, COCO, YOLO's text. Boxes are in pixels of the image, as the server has them.

import { cornersOf } from "./draw.js";

/** What is shown, as the server would respond. */
export function toJson({ document, task }, predictions) {
  const shown = ["depth", "tabular"].includes(task) ? document : { ...document, predictions };
  return JSON.stringify(shown, null, 1);
}

/**
 * A data set of COCO with one image, as pycocotools and labelling tools read it; annotations have their `score` too.
 * @param {{document: any, task: string}} result @param {any[]} predictions
 * @param {{file: string, metadata: any}} about
 */
export function toCoco({ document, task }, predictions, { file, metadata }) {
  const { width, height } = document.image;
  const { names, class_ids: ids } = metadata.parameters;
  const categories = ids.map((id, index) => ({ id, name: names[index], ...(task === "pose" && { keypoints: keypointNames(predictions, metadata, index), skeleton: [] }) }));
  const annotations = predictions.map((each, index) => ({
    id: index + 1,
    image_id: 1,
    category_id: each.class_id,
    bbox: [each.box.x1, each.box.y1, each.width, each.height],
    iscrowd: 0,
    score: each.confidence,
    ...outlineOf(each),
    ...(each.keypoints && keypointsOf(each, metadata)),
  }));
  return JSON.stringify({ info: { description: `${document.model.name} ${document.model.version}` }, images: [{ id: 1, file_name: file, width, height }], categories, annotations }, null, 1);
}

function outlineOf(prediction) {
  if (prediction.rle) return { segmentation: prediction.rle, area: prediction.width * prediction.height };
  const rings = prediction.parts ?? (prediction.points && [prediction.points]) ?? [prediction.corners ?? cornersOf(prediction.box)];
  return { segmentation: rings.map((ring) => ring.flatMap(({ x, y }) => [x, y])), area: rings.reduce((sum, ring) => sum + areaOf(ring), 0) };
}

function areaOf(ring) {
  const twice = ring.reduce((sum, { x, y }, index) => {
    const next = ring[(index + 1) % ring.length];
    return sum + x * next.y - next.x * y;
  }, 0);
  return Math.abs(twice) / 2;
}

function keypointCount({ keypoints = [] }, metadata) {
  return metadata.parameters.kpt_shape?.[0] ?? Math.max(-1, ...keypoints.map((each) => each.class_id)) + 1;
}

function keypointNames(predictions, metadata, index) {
  const named = metadata.parameters.kpt_names;
  const found = Array.isArray(named) ? named : (named?.[metadata.parameters.class_ids[index]] ?? []);
  const count = Math.max(0, ...predictions.map((each) => keypointCount(each, metadata)));
  return found.length ? found : Array.from({ length: count }, (_, each) => String(each));
}

/** COCO's flat list: x, y and 2 where a keypoint is seen, 0 three times where it is not. */
function keypointsOf(prediction, metadata) {
  const flat = new Array(3 * keypointCount(prediction, metadata)).fill(0);
  for (const { class_id: at, x, y } of prediction.keypoints) flat.splice(3 * at, 3, x, y, 2);
  return { keypoints: flat, num_keypoints: prediction.keypoints.length };
}

/** Labels as YOLO trains with them, a line for each object; of a classifier probability and name, as `save_txt` writes them. */
export function toYolo({ document, task }, predictions, metadata) {
  if (task === "classify") return lines(predictions.map((each) => [each.confidence.toFixed(2), each.class]));
  const { width, height } = document.image;
  const share = (number, whole) => String(+Math.min(Math.max(number / whole, 0), 1).toFixed(6));
  const points = (ring) => ring.flatMap(({ x, y }) => [share(x, width), share(y, height)]);
  return lines(predictions.map((each) => {
    const box = [share(each.x, width), share(each.y, height), share(each.width, width), share(each.height, height)];
    if (each.corners) return [each.class_id, ...points(each.corners)];
    if (each.points) return [each.class_id, ...points(each.points)];
    if (!each.keypoints) return [each.class_id, ...box];
    const flat = new Array(3 * keypointCount(each, metadata)).fill("0");
    for (const { class_id: at, x, y } of each.keypoints) flat.splice(3 * at, 3, share(x, width), share(y, height), "2");
    return [each.class_id, ...box, ...flat];
  }));
}

function lines(rows) {
  return rows.map((row) => `${row.join(" ")}\n`).join("");
}

/** Have the browser save a file. */
export function save(content, name, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
