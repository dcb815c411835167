// States of versions in words, and what helps where one is rejected: of both pages.

const STATES = {
  serving: "serving", loading: "loading", refused: "rejected", available: "available", incomplete: "incomplete", staged: "being verified",
};

/** A state of /status in words. */
export function stateWords(state) {
  return STATES[state] ?? state;
}

// Of the synchroniser's reasons: words in them, and what helps.
const NEXT_STEPS = [
  [/sha256|digest|size/i, "The files are not those of its manifest: upload them again."],
  [/sign/i, "Sign it with a key that this server trusts: nereid sign."],
  [/golden/i, "It gives other outputs than its export did: export it again, on the same versions of its runtime."],
  [/manifest/i, "Correct its manifest.json, or publish it with nereid publish."],
  [/labels or tensors/i, "Publish it as a new number, or serve one version alone."],
  [/version_policy|instance_group|parameters|config/i, "Correct its config.pbtxt."],
  [/disk|space|MIRROR_BYTES/i, "Make room for it: nereid prune, or a larger disk."],
];

/** What to do with a version that is rejected for this reason. */
export function nextStep(reason) {
  return NEXT_STEPS.find(([pattern]) => pattern.test(reason ?? ""))?.[1] ?? "Correct it and publish it as a new version, or delete it.";
}
