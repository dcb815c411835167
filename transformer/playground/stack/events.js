// What changed from one /status to the next, newest first.

import { byId, element } from "../dom.js";
import { clock, duration } from "./words.js";

const KEPT_MS = 900_000;
const FRESH_MS = 10_000;
const MOST = 200;
let events = [];

/** Add an event; `level` is one of good, warn, bad. */
export function note(words, level = "", at = new Date()) {
  events.unshift({ words, level, at: new Date(at), seen: Date.now() });
}

/** Show them; forget what is too old, and end what is highlighted. */
export function showEvents() {
  const now = Date.now();
  events = events.filter(({ seen }) => now - seen < KEPT_MS).slice(0, MOST);
  byId("no-events").hidden = events.length > 0;
  for (const event of events) {
    event.item ??= element("li", { class: event.level }, element("time", { class: "faint" }, clock(event.at)), " ", event.words);
    event.item.classList.toggle("fresh", now - event.seen < FRESH_MS);
  }
  const place = byId("events");
  const items = events.map(({ item }) => item);
  if (items.length !== place.children.length || items[0] !== place.firstChild) place.replaceChildren(...items);
}

/** Note how two /status differ; the first has nothing to differ from. */
export function compare(before, after) {
  if (!before) return;
  if (before.instance !== after.instance) return; // another pod, of which nothing is known
  if (before.triton.ok !== after.triton.ok) {
    note(after.triton.ok ? "Triton responds again" : "Triton does not respond", after.triton.ok ? "good" : "bad", after.triton.since);
  }
  if (before.ready !== after.ready) note(after.ready ? "ready" : `not ready: waits for ${after.waiting_for}`, after.ready ? "good" : "bad");
  if (!before.listing.failing_since !== !after.listing.failing_since) {
    const { failing_since: since, error } = after.listing;
    note(since ? `the listing of the repository fails: ${error}` : "the listing of the repository succeeds again", since ? "bad" : "good", since ?? after.listing.at);
  }
  for (const name of Object.keys(before.models).filter((known) => !(known in after.models))) note(`${name} is no longer in the repository`);
  for (const [name, model] of Object.entries(after.models)) compareModel(name, before.models[name], model);
}

function compareModel(name, before, model) {
  if (!before) note(`${name} is new in the repository`);
  const was = before?.versions ?? {};
  for (const number of Object.keys(was).filter((known) => !(known in model.versions))) {
    if (!model.more_versions) note(`${name} ${number} is no longer in the repository`);
  }
  for (const [number, version] of Object.entries(model.versions)) compareVersion(`${name} ${number}`, was[number], version);
  if (before && before.state !== model.state && model.state !== "serving") {
    note(`${name} does not serve${model.error ? `: ${model.error}` : ""}`, "bad", model.since);
  }
  if (before && before.policy !== model.policy) note(`${name}: policy ${before.policy || "none"} -> ${model.policy}`);
}

function compareVersion(title, before, { state, since, reason, seconds_to_serve: seconds }) {
  if (before?.state === state) return;
  if (state === "serving") {
    const after = seconds === null ? "" : `, ${duration(seconds)} after it was first seen`;
    note(`${title} serves${after}`, "good", since);
  } else if (state === "refused") note(`${title} is rejected: ${reason}`, "bad", since);
  else if (state === "staged") note(`${title} is being verified`, "warn", since);
  else if (state === "incomplete") note(`${title} is incomplete: ${reason}`, "warn", since);
  else if (before?.state === "serving") note(`${title} is retired`, "", since);
  else if (!before) note(`${title} is available`, "", since);
}
