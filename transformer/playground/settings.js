// What the user chose: models, versions and parameters. It is kept in the address, so that a link or a reload has it too.

export const DEFAULTS = {
  model: "",
  version: "",
  model2: "",
  version2: "",
  confidence: 0.25,
  probability: 0,
  iou: 0.7,
  max_detections: 300,
  top_k: 5,
  keypoint_confidence: 0,
  mask: "polygon",
  then: "",
  depth_scale: 0.001,
  opacity: 0.5,
  labels: true,
  /** Names of the chosen classes, null for all. @type {string[] | null} */
  classes: null,
};

/** @typedef {typeof DEFAULTS} Settings */

/** The settings of an address; what is missing or unreadable has its default. @returns {Settings} */
export function readSettings(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const settings = { ...DEFAULTS };
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    const text = given.get(name);
    if (text === null) continue;
    if (name === "classes") settings.classes = given.getAll(name);
    else if (typeof standard === "number") settings[name] = readNumber(text, standard, name);
    else if (typeof standard === "boolean") settings[name] = text === "true";
    else settings[name] = text;
  }
  if (!["polygon", "rle", "none"].includes(settings.mask)) settings.mask = DEFAULTS.mask;
  return settings;
}

/** The address of settings: what differs from the defaults. */
export function writeSettings(settings) {
  const parts = new URLSearchParams();
  for (const [name, standard] of Object.entries(DEFAULTS)) {
    const value = settings[name];
    if (name === "classes") for (const each of value ?? []) parts.append(name, each);
    else if (value !== standard) parts.set(name, String(value));
  }
  return parts.toString();
}

function readNumber(text, standard, name) {
  const number = Number(text);
  const [low, high] = { max_detections: [1, 1000], top_k: [1, 1000], depth_scale: [1e-6, 1] }[name] ?? [0, 1];
  return text.trim() !== "" && number >= low && number <= high ? number : standard;
}
