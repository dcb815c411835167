// Prometheus' text format, and quantiles of its histograms.

const LINE = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?\s+(\S+)/;
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"/g;
const ESCAPED = { "\\n": "\n", '\\"': '"', "\\\\": "\\" };

/** Samples by the name of their series: `Map` of name to a list of `{labels, value}`. */
export function parse(text) {
  const series = new Map();
  for (const line of text.split("\n")) {
    if (line.startsWith("#")) continue;
    const [, name, labels = "", number] = line.match(LINE) ?? [];
    if (!name) continue;
    if (!series.has(name)) series.set(name, []);
    series.get(name).push({ labels: readLabels(labels), value: readNumber(number) });
  }
  return series;
}

/**
 * The quantile of a histogram, interpolated in its bucket as `histogram_quantile` of Prometheus does.
 * @param {Map<number, number>} buckets how many were up to each bound, Infinity among them
 * @param {number} q of 0 to 1
 * @returns {number} NaN where nothing was counted; the last finite bound where it is beyond all of them
 */
export function quantile(buckets, q) {
  const bounds = [...buckets.keys()].sort((a, b) => a - b);
  const total = buckets.get(Infinity) ?? 0;
  if (!total) return NaN;
  const rank = q * total;
  const at = bounds.findIndex((bound) => buckets.get(bound) >= rank);
  if (bounds[at] === Infinity) return bounds[at - 1] ?? NaN;
  const [low, before] = at ? [bounds[at - 1], buckets.get(bounds[at - 1])] : [0, 0];
  const within = buckets.get(bounds[at]) - before;
  return low + (bounds[at] - low) * (within ? (rank - before) / within : 1);
}

function readLabels(text) {
  const unescape = (value) => value.replace(/\\["\\n]/g, (pair) => ESCAPED[pair]);
  return Object.fromEntries([...text.matchAll(LABEL)].map(([, name, value]) => [name, unescape(value)]));
}

function readNumber(text) {
  if (text === "+Inf") return Infinity;
  return text === "-Inf" ? -Infinity : Number(text);
}
