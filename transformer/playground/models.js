// Models and versions of the server: /v2/models and /status together, and the metadata of one.

import { ApiError, getJson } from "./api.js";

export const FINDS_OBJECTS = ["detect", "segment", "pose", "obb"];
export const TAKES_IMAGES = [...FINDS_OBJECTS, "classify", "semantic", "depth"];
const MOST_LEARNT = 50;
/** Tasks by the names of models. @type {Map<string, string>} */
const tasks = new Map();

/**
 * @typedef {{version: string, state: string, reason: string, profile: string}} Version
 * @typedef {{name: string, state: string, error: string, serving: string[], versions: Version[]}} Entry
 */

/**
 * All models that the server knows, by name.
 * A server without a synchroniser has no /status; one with a secret of Triton's may not list its models.
 * @returns {Promise<Map<string, Entry>>}
 */
export async function loadModels() {
  const [listed, status] = await Promise.allSettled([getJson("v2/models"), getJson("status")]);
  if (listed.status === "rejected" && status.status === "rejected") throw listed.reason;
  if (listed.status === "rejected" && [401, 403].includes(listed.reason.status)) throw listed.reason;
  // Away for a moment: without it nothing is known of versions.
  if (status.status === "rejected" && status.reason.status >= 500) throw status.reason;
  /** @type {Map<string, Entry>} */
  const models = new Map();
  if (listed.status === "fulfilled") {
    for (const name of listed.value.models) models.set(name, { name, state: "serving", error: "", serving: [], versions: [] });
  }
  if (status.status === "fulfilled") {
    for (const [name, model] of Object.entries(status.value.models)) models.set(name, readEntry(name, model));
  }
  return new Map([...models].sort(([one], [other]) => (one < other ? -1 : 1)));
}

function readEntry(name, model) {
  const versions = Object.entries(model.versions ?? {}).map(([version, each]) => ({
    version,
    state: each.state,
    reason: each.reason ?? "",
    profile: (typeof each.profile === "string" ? each.profile : each.profile?.chosen) ?? "",
  }));
  versions.sort((one, other) => Number(other.version) - Number(one.version));
  return { name, state: model.state, error: model.error ?? "", serving: model.serving ?? [], versions };
}

/** The metadata of a model, or of one of its versions, as /v2 has it. */
export async function describe(name, version) {
  const path = `v2/models/${encodeURIComponent(name)}${version ? `/versions/${encodeURIComponent(version)}` : ""}`;
  const metadata = await getJson(path);
  if (!metadata.parameters) throw new ApiError(`${name}: the server describes no task`);
  tasks.set(name, metadata.parameters.task);
  return metadata;
}

/** Learn what models do, of those that serve and are not known yet: once, when there is time. */
export async function learnTasks(models) {
  const unknown = [...models.values()].filter((each) => each.state === "serving" && !tasks.has(each.name));
  await Promise.allSettled(unknown.slice(0, MOST_LEARNT).map(({ name }) => describe(name, "")));
  return unknown.length > 0;
}

/** The task of a model, "" where it is not known. */
export function taskOf(name) {
  return tasks.get(name) ?? "";
}
