// What /metrics said over the last 15 minutes, and what happened between two times of it.

import { parse, quantile } from "./prometheus.js";

export const KEPT_S = 900;
/** Rates and quantiles of the charts are those of this time, or of less where there is less. */
const WINDOW_S = 60;
// HTTP by path, gRPC by method; others are no inference: health, metadata, this page's own.
const INFERENCE = /^\/predict\/|:predict$|\/infer$|^\/invocations$|^\/v1\/vision\/(detection$|custom\/\{)|ModelInfer$/;
const SUCCEEDED = /^2|^OK$/;

/** One scrape, reduced to counters by key; `at` in ms since 1970, `started` of the process that responded. */
export function reduce(text, at) {
  const series = parse(text);
  const counters = new Map();
  const add = (key, value) => counters.set(key, (counters.get(key) ?? 0) + value);
  const each = (name, use) => (series.get(name) ?? []).forEach(({ labels, value }) => use(labels, value));
  each("nereid_requests_total", (labels, value) => {
    if (!INFERENCE.test(labels.route)) return;
    add("requests", value);
    if (!SUCCEEDED.test(labels.status)) add(`status ${labels.status}`, value);
  });
  each("nereid_request_seconds_bucket", (labels, value) => INFERENCE.test(labels.route) && add(`le ${labels.le}`, value));
  each("nereid_refused_total", (labels, value) => add(`rejected ${labels.reason}`, value));
  each("nereid_stage_seconds_sum", (labels, value) => add(`sum ${labels.stage} ${labels.model}`, value));
  each("nereid_stage_seconds_count", (labels, value) => add(`count ${labels.stage} ${labels.model}`, value));
  const gauge = (name) => series.get(name)?.[0]?.value;
  return {
    at, counters,
    started: gauge("process_start_time_seconds"),
    waiting: gauge("nereid_waiting"), inFlight: gauge("nereid_in_flight"), ready: gauge("nereid_predictor_ready"),
    version: series.get("nereid_build_info")?.[0]?.labels.version,
  };
}

/** Scrapes in order, with what was computed of each. */
export class Samples {
  #kept = [];

  /** Keep a scrape; returns its figures: rates and quantiles of the time before it. */
  add(sample) {
    const since = sample.at - KEPT_S * 1000;
    this.#kept = this.#kept.filter(({ at }) => at >= since);
    sample.figures = figures(this.#before(sample, WINDOW_S), sample);
    this.#kept.push(sample);
    return sample.figures;
  }

  /** All of them, oldest first. */
  get all() {
    return this.#kept;
  }

  /** The figures of the time before the last scrape; null without one before it. */
  figuresOf(windowS) {
    const last = this.#kept.at(-1);
    return figures(this.#before(last, windowS), last);
  }

  /** The scrape of the same process that is as far back as the window goes: others count from zero of their own. */
  #before(sample, windowS) {
    const same = this.#kept.filter(({ started }) => started === sample.started);
    return same.find(({ at }) => at >= sample.at - windowS * 1000);
  }
}

/** What happened between two scrapes; null without a first one. */
function figures(before, after) {
  if (!before || after.at <= before.at) return null;
  const seconds = (after.at - before.at) / 1000;
  const more = (key) => (after.counters.get(key) ?? 0) - (before.counters.get(key) ?? 0);
  const keys = [...after.counters.keys()];
  const buckets = new Map(keys.filter((key) => key.startsWith("le ")).map((key) => [bound(key), more(key)]));
  const named = (prefix) => keys.filter((key) => key.startsWith(prefix) && more(key) > 0);
  const errors = named("status ").map((key) => ({ status: key.slice(7), count: more(key) }));
  return {
    seconds,
    requests: more("requests"),
    perSecond: more("requests") / seconds,
    errorsPerSecond: errors.reduce((sum, { count }) => sum + count, 0) / seconds,
    p50: quantile(buckets, 0.5),
    p99: quantile(buckets, 0.99),
    beyond: Math.max(...[...buckets.keys()].filter(Number.isFinite)),
    errors,
    rejected: named("rejected ").map((key) => ({ reason: key.slice(9), count: more(key) })),
    stages: stages(named("count "), more),
  };
}

function bound(key) {
  return key === "le +Inf" ? Infinity : Number(key.slice(3));
}

/** `{model, items, ms: {stage: mean}}` of each model that had items. */
function stages(keys, more) {
  const byModel = new Map();
  for (const key of keys) {
    const [, stage, model] = key.match(/^count (\S+) (.*)$/s);
    if (!byModel.has(model)) byModel.set(model, { model, items: 0, ms: {} });
    const found = byModel.get(model);
    found.items = Math.max(found.items, more(key));
    found.ms[stage] = (1000 * more(`sum ${stage} ${model}`)) / more(key);
  }
  return [...byModel.values()].sort((a, b) => a.model.localeCompare(b.model));
}
