// What the server would respond at other settings, from a response that has more: pure functions.
//
// Exact, because non-maximum suppression looks at better boxes of the same class alone (also "fast NMS" of oriented
// boxes): an object above a confidence is the same whatever lies below it. `doubts` says where that does not hold.

import { FINDS_OBJECTS } from "./models.js";

/** Half of the last decimal of a confidence in JSON, and the rounding of 32 bits: so close the server may decide otherwise. */
const ROUNDING = 6e-7;

/**
 * Whether a response has all that settings show; otherwise another request is needed.
 * @param {{task: string, requested: any}} result
 * @param {import("./settings.js").Settings} settings
 */
export function covers({ task, requested }, settings) {
  if (requested.classes && !(settings.classes ?? []).length) return false;
  if (requested.classes && !settings.classes.every((name) => requested.classes.includes(name))) return false;
  if (task === "classify") return requested.top_k >= settings.top_k && requested.confidence <= settings.probability;
  if (task === "depth") return requested.depth_scale === settings.depth_scale;
  if (!FINDS_OBJECTS.includes(task)) return true;
  return (
    requested.confidence <= settings.confidence &&
    requested.max_detections >= settings.max_detections &&
    requested.iou === settings.iou &&
    (requested.then ?? "") === settings.then &&
    (task !== "segment" || requested.mask === settings.mask) &&
    (requested.keypoint_confidence ?? 0) <= settings.keypoint_confidence
  );
}

/**
 * The predictions that settings show, best first, and in words where the server may respond otherwise.
 * @returns {{predictions: any[], doubts: string[], cut: boolean}} `cut`: `max_detections` left some out
 */
export function narrow({ document, task, requested }, settings) {
  const all = document.predictions;
  if (task === "classify") return narrowClasses(all, requested, settings);
  if (task === "semantic") return { predictions: all.filter((each) => isChosen(each, settings)), doubts: [], cut: false };
  if (!FINDS_OBJECTS.includes(task)) return { predictions: all ?? [], doubts: [], cut: false };
  const least = settings.confidence;
  const passes = (each) => requested.confidence === least || each.confidence > least;
  const kept = all.filter((each) => passes(each) && isChosen(each, settings));
  const predictions = kept.slice(0, settings.max_detections).map((each) => withKeypoints(each, requested, settings));
  const cut = kept.length > predictions.length || document.limits_reached.max_detections === settings.max_detections;
  return { predictions, doubts: doubtsOf(document, task, requested, settings, kept), cut };
}

function isChosen(prediction, { classes }) {
  return classes === null || classes.includes(prediction.class);
}

function narrowClasses(all, requested, settings) {
  const kept = all.filter((each) => isChosen(each, settings)).slice(0, settings.top_k);
  const doubts = [];
  if (settings.classes && !requested.classes && all.length >= requested.top_k && kept.length < settings.top_k) {
    doubts.push(`Only the best ${requested.top_k} classes are here; others may be among the chosen.`);
  }
  return { predictions: kept.filter((each) => each.confidence >= settings.probability), doubts, cut: false };
}

function withKeypoints(prediction, requested, { keypoint_confidence: least }) {
  if (!prediction.keypoints || requested.keypoint_confidence === least || least === 0) return prediction;
  return { ...prediction, keypoints: prediction.keypoints.filter((each) => each.confidence >= least) };
}

function doubtsOf({ predictions, limits_reached: limits }, task, requested, settings, kept) {
  const doubts = [];
  const same = requested.confidence === settings.confidence && requested.max_detections === settings.max_detections;
  const sameClasses = (requested.classes ?? []).join("\n") === (settings.classes ?? []).join("\n");
  if (same && sameClasses) return keypointDoubts(kept, requested, settings);
  const weakest = predictions.at(-1)?.confidence ?? 1;
  if (Object.keys(limits).length && settings.confidence < weakest) {
    doubts.push(`A limit left out objects below ${weakest.toFixed(3)} (${limitWords(limits)}); there may be others.`);
  }
  if (requested.confidence !== settings.confidence && predictions.some((each) => isClose(each, settings.confidence))) {
    doubts.push("A confidence equals the limit in all decimals of the response; the server decides by more.");
  }
  if (task === "segment" && settings.mask !== "none" && kept.length > settings.max_detections) {
    doubts.push("The server also counts objects whose mask is empty, which it leaves out: it may respond with fewer.");
  }
  return [...doubts, ...keypointDoubts(kept, requested, settings)];
}

function keypointDoubts(kept, requested, { keypoint_confidence: least }) {
  if (least === 0 || requested.keypoint_confidence === least) return [];
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
