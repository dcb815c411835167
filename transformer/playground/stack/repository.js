// Readiness and the model repository, from /status.

import { byId, element } from "../dom.js";
import { nextStep, stateWords } from "../states.js";
import { heading, scrolled, tiles } from "./traffic.js";
import { clock, duration, figure } from "./words.js";

const LEVELS = { serving: "good", refused: "bad", loading: "warn", staged: "warn", incomplete: "warn" };
const SHOWN = 5; // of the versions that are merely available
let drawn = ""; // what the models are drawn from: only what changed is drawn again, and a selection of text stays

/** Show readiness; either may be null where it is not known. */
export function showReady(status, sample) {
  const tritonOk = status ? status.triton.ok : sample?.ready === 1;
  const rows = [];
  if (status) {
    const why = status.ready ? "Triton does not respond" : `waits for ${status.waiting_for}`;
    const ready = status.ready && tritonOk && sample?.ready !== 0;
    rows.push(["Ready", ready ? "yes" : `no: ${why}`, ready ? "good" : "bad", "is-ready"]);
  }
  if (status || sample) {
    const since = status ? ` since ${clock(status.triton.since)}` : "";
    rows.push(["Triton", tritonOk ? `responds${since}` : `does not respond${since}; it is started again`, tritonOk ? "good" : "bad", "triton"]);
  }
  if (sample && status && (sample.ready === 1) !== status.triton.ok) {
    rows.push(["Triton, for the transformer", sample.ready === 1 ? "ready" : "not ready", sample.ready === 1 ? "good" : "bad"]);
  }
  if (status) {
    rows.push(["Synchroniser", `responds${status.instance ? ` (${status.instance})` : ""}`, "good", "synchroniser"]);
    rows.push(["Repository", status.repository, ""], listing(status.listing));
  }
  if (sample?.version) rows.push(["Version", sample.version, ""]);
  byId("ready").replaceChildren(rows.length ? tiles(rows) : element("p", { class: "faint" }, "Not known: neither /status nor /metrics was read."));
}

/** Show the models of /status. */
export function showModels(status) {
  const key = JSON.stringify([status.models, status.more_models, status.ignored]);
  if (key === drawn) return;
  drawn = key;
  const models = Object.entries(status.models);
  const parts = models.map(([name, model]) => showModel(name, model));
  if (!models.length) parts.push(element("p", { class: "faint" }, "The repository has no model yet: nereid publish puts one there."));
  if (status.more_models) parts.push(element("p", { class: "faint" }, `and ${status.more_models} more folders`));
  const ignored = Object.entries(status.ignored ?? {});
  if (ignored.length) {
    parts.push(element("h3", {}, "Ignored files"), element("ul", {}, ignored.map(([name, why]) => element("li", {}, `${name}: ${why}`))));
  }
  byId("models").replaceChildren(...parts);
}

/** Show the names alone, of a server without a synchroniser. */
export function showNames(names) {
  const key = JSON.stringify(names);
  if (key === drawn) return;
  drawn = key;
  byId("models").replaceChildren(names.length
    ? element("ul", {}, names.map((name) => element("li", {}, name)))
    : element("p", { class: "faint" }, "Triton has no model."));
}

function listing({ ok, at, failing_since: since, error }) {
  if (ok) return ["Listing of the repository", `succeeds, last at ${clock(at)}`, "good", "listing"];
  if (!since) return ["Listing of the repository", "the first one is awaited", "warn", "listing"];
  const before = at ? `, last succeeded at ${clock(at)}` : "";
  return ["Listing of the repository", `fails since ${clock(since)}${before}: ${error}`, "bad", "listing"];
}

function showModel(name, model) {
  const serving = model.serving.length ? `serves ${model.serving.join(", ")}` : stateWords(model.state);
  const pinned = /^specific/.test(model.policy) ? `pinned: ${model.policy}` : model.policy && `policy: ${model.policy}`;
  const versions = Object.entries(model.versions).sort(([a], [b]) => Number(b) - Number(a));
  const available = versions.filter(([, { state }]) => state === "available").slice(SHOWN);
  const shown = versions.filter((each) => !available.includes(each));
  const more = available.length + model.more_versions;
  return element("article", { class: "model", "data-model": name },
    element("h3", {}, name),
    element("p", {}, mark(model.state, serving), element("span", { class: "faint" }, ` since ${clock(model.since)}`, pinned ? `, ${pinned}` : "")),
    model.error && element("p", { class: `message ${model.state === "refused" ? "bad" : "warn"}` }, model.error, " ",
      element("span", { class: "faint" }, model.state === "refused" ? nextStep(model.error) : "It is tried again.")),
    shown.length > 0 && scrolled(`Versions of ${name}`, element("table", {},
      element("thead", {}, element("tr", {}, heading("Version", "number"), heading("State"), heading("Since"), heading("Served after"), heading("Profile and reason"))),
      element("tbody", {}, shown.map(([number, version]) => showVersion(number, version))))),
    more > 0 && element("p", { class: "faint" }, `and ${more} older versions`));
}

function showVersion(number, version) {
  const { state, reason, since, seconds_to_serve: seconds, profile } = version;
  return element("tr", { "data-version": number },
    element("th", { scope: "row", class: "number" }, number),
    element("td", {}, mark(state, stateWords(state))),
    element("td", {}, clock(since)),
    element("td", {}, seconds === null ? "" : duration(seconds)),
    element("td", { class: "words" },
      profile && element("div", {}, [profile.chosen, measured(profile.measured)].filter(Boolean).join(": ")),
      reason && element("div", {}, reason),
      state === "refused" && element("div", { class: "faint" }, nextStep(reason))));
}

/** How long a request takes in each profile, as a share of the first one's time, or why it was not measured. */
function measured(profiles) {
  const parts = Object.entries(profiles).map(([name, value]) => `${name} ${typeof value === "number" ? `${figure(value * 100)} %` : `not (${value})`}`);
  return parts.join(", ");
}

function mark(state, words) {
  return element("span", { class: `mark ${LEVELS[state] ?? ""}` }, words);
}
