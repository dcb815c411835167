// The page of the stack: what /status and /metrics say, every 2 s.

import { getJson, request } from "../api.js";
import { byId, show } from "../dom.js";
import { compare, note, showEvents } from "./events.js";
import { connectKey, requireKey } from "../key.js";
import { poll } from "./poll.js";
import { showModels, showNames, showReady } from "./repository.js";
import { reduce, Samples } from "./samples.js";
import { showTraffic } from "./traffic.js";
import { clock } from "./words.js";

const samples = new Samples();
let before = null; // the last /status
let started = null; // of the process whose /metrics were last read
let seenAt = null;

/** An error without a response, or with one that is not this server's: of a proxy before it. */
function isAway(error) {
  return !("code" in error) || !error.status || (!error.code && error.status >= 500) || error.name === "TimeoutError";
}

/** Both routes, each with its own error; the server is away where neither responds. */
async function update(signal) {
  const [status, metrics] = await Promise.allSettled([
    getJson("status", { signal }),
    request("metrics", { signal }).then((response) => response.text()),
  ]);
  const errors = [status, metrics].map(({ reason }) => reason).filter(Boolean);
  const away = errors.find(isAway);
  if (away) throw away;
  if (errors.some(({ status: code }) => code === 401 || code === 403)) requireKey();
  seenAt = new Date();
  const sample = metrics.value === undefined ? null : keep(metrics.value);
  show(byId("traffic-problem"), metrics.reason ?? null, "warn");
  await showStatus(status, signal);
  showReady(status.value ?? null, sample);
  showEvents();
}

function keep(text) {
  const sample = reduce(text, Date.now());
  samples.add(sample);
  if (started && sample.started > started) note("the server was started again, and counts from zero", "warn", sample.started * 1000);
  started = sample.started;
  showTraffic(samples);
  return sample;
}

async function showStatus({ value, reason }, signal) {
  if (value) {
    show(byId("models-problem"), null);
    compare(before, value);
    before = value;
    showModels(value);
    return;
  }
  if (reason.code !== "synchroniser_not_found") {
    show(byId("models-problem"), reason, "bad");
    return;
  }
  const next = "Versions, their states and swaps are known where TRANSFORMER_SYNC_URL names one.";
  try {
    showNames((await getJson("v2/models", { signal })).models);
    show(byId("models-problem"), { message: "This server has no synchroniser: these are the models that Triton has.", next }, "warn");
  } catch (error) {
    if (error.status !== 501) throw error;
    show(byId("models-problem"), { message: "This server has no synchroniser, and its Triton does not list its models.", next }, "warn");
  }
}

function report({ awaySince, nextMs, error }) {
  const proxy = error?.status ? ` (${error.message})` : "";
  const shown = seenAt ? ` What is shown is of ${clock(seenAt)}.` : "";
  const words = awaySince ? `The server does not respond since ${clock(awaySince)}${proxy}.${shown}` : "The server responds.";
  if (byId("server").textContent !== words) byId("server").textContent = words; // it is read aloud when it changes
  byId("server").className = `message ${awaySince ? "bad" : "good"}`;
  byId("countdown").textContent = awaySince ? `Trying again in ${Math.ceil(nextMs / 1000)} s.` : `As of ${clock(seenAt)}, renewed every 2 s.`;
  byId("at-once").hidden = !awaySince;
  if (awaySince) {
    showReady(null, null);
    showEvents();
  }
}

const again = poll(update, report);
connectKey(again);
byId("at-once").addEventListener("click", again);
byId("window").addEventListener("change", () => samples.all.length && showTraffic(samples));
new ResizeObserver(() => samples.all.length && showTraffic(samples)).observe(byId("charts"));
