// What the server would respond at other settings, from a response that has more: pure functions.
//
// Exact, because non-maximum suppression looks at better boxes of the same class alone (also "fast NMS" of oriented
// boxes): an object above a confidence is the same whatever lies below it. `doubts` says where that does not hold.

import { FINDS_OBJECTS } from "./models.js";

/** Half of the last decimal of a confidence in JSON, and the rounding of 32 bits: so close the server may decide otherwise. */
const ROUNDING = 6e-7;

/**
 * Whether a response has all that settings show; otherwise another request is needed.
 * @param {{task: string, asked: any}} result
 * @param {import("./settings.js").Settings} settings
 */
export function covers({ task, asked }, settings) {
  if (asked.classes && !(settings.classes ?? []).length) return false;
  if (asked.classes && !settings.classes.every((name) => asked.classes.includes(name))) return false;
  if (task === "classify") return asked.top_k >= settings.top_k && asked.confidence <= settings.probability;
  if (task === "depth") return asked.depth_scale === settings.depth_scale;
  if (!FINDS_OBJECTS.includes(task)) return true;
  return (
    asked.confidence <= settings.confidence &&
    asked.max_detections >= settings.max_detections &&
    asked.iou === settings.iou &&
    (asked.then ?? "") === settings.then &&
    (task !== "segment" || asked.mask === settings.mask) &&
    (asked.keypoint_confidence ?? 0) <= settings.keypoint_confidence
  );
}

/**
 * The predictions that settings show, best first, and in words where the server may respond otherwise.
 * @returns {{predictions: any[], doubts: string[], cut: boolean}} `cut`: `max_detections` left some out
 */
export function narrow({ document, task, asked }, settings) {
  const all = document.predictions;
  if (task === "classify") return narrowClasses(all, asked, settings);
  if (task === "semantic") return { predictions: all.filter((each) => isChosen(each, settings)), doubts: [], cut: false };
  if (!FINDS_OBJECTS.includes(task)) return { predictions: all ?? [], doubts: [], cut: false };
  const least = settings.confidence;
  const passes = (each) => asked.confidence === least || each.confidence > least;
  const kept = all.filter((each) => passes(each) && isChosen(each, settings));
  const predictions = kept.slice(0, settings.max_detections).map((each) => withKeypoints(each, asked, settings));
  const cut = kept.length > predictions.length || document.limits_reached.max_detections === settings.max_detections;
  return { predictions, doubts: doubtsOf(document, task, asked, settings, kept), cut };
}

function isChosen(prediction, { classes }) {
  return classes === null || classes.includes(prediction.class);
}

function narrowClasses(all, asked, settings) {
  const kept = all.filter((each) => isChosen(each, settings)).slice(0, settings.top_k);
  const doubts = [];
  if (settings.classes && !asked.classes && all.length >= asked.top_k && kept.length < settings.top_k) {
    doubts.push(`Only the best ${asked.top_k} classes are here; others may be among the chosen.`);
  }
  return { predictions: kept.filter((each) => each.confidence >= settings.probability), doubts, cut: false };
}

function withKeypoints(prediction, asked, { keypoint_confidence: least }) {
  if (!prediction.keypoints || asked.keypoint_confidence === least || least === 0) return prediction;
  return { ...prediction, keypoints: prediction.keypoints.filter((each) => each.confidence >= least) };
}

function doubtsOf({ predictions, limits_reached: limits }, task, asked, settings, kept) {
  const doubts = [];
  const same = asked.confidence === settings.confidence && asked.max_detections === settings.max_detections;
  const sameClasses = (asked.classes ?? []).join("\n") === (settings.classes ?? []).join("\n");
  if (same && sameClasses) return keypointDoubts(kept, asked, settings);
  const weakest = predictions.at(-1)?.confidence ?? 1;
  if (Object.keys(limits).length && settings.confidence < weakest) {
    doubts.push(`A limit left out objects below ${weakest.toFixed(3)} (${limitWords(limits)}); there may be others.`);
  }
  if (asked.confidence !== settings.confidence && predictions.some((each) => isClose(each, settings.confidence))) {
    doubts.push("A confidence equals the limit in all decimals of the response; the server decides by more.");
  }
  if (task === "segment" && settings.mask !== "none" && kept.length > settings.max_detections) {
    doubts.push("The server also counts objects whose mask is empty, which it leaves out: it may respond with fewer.");
  }
  return [...doubts, ...keypointDoubts(kept, asked, settings)];
}

function keypointDoubts(kept, asked, { keypoint_confidence: least }) {
  if (least === 0 || asked.keypoint_confidence === least) return [];
  const close = kept.some((each) => (each.keypoints ?? []).some((point) => isClose(point, least)));
  return close ? ["A keypoint equals the limit in all decimals of the response; the server decides by more."] : [];
}

function isClose({ confidence }, limit) {
  return Math.abs(confidence - limit) <= ROUNDING;
}

/** Limits of a response, as words. */
export function limitWords(limits) {
  const words = {
    max_detections: "most detections",
    nms_candidates: "candidates of NMS",
    model_candidates: "candidates of the model",
    mask_pixels: "pixels of masks",
    depth_map: "highest value of the PNG",
  };
  return Object.entries(limits).map(([name, count]) => `${words[name] ?? name}: ${count}`).join(", ");
}

/** How often each class is among predictions, the most frequent first. @returns {[string, number][]} */
export function countClasses(predictions) {
  const counts = new Map();
  for (const each of predictions) counts.set(each.class, (counts.get(each.class) ?? 0) + 1);
  return [...counts].sort(([, one], [, other]) => other - one);
}
