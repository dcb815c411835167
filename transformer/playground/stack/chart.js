// Small line charts: SVG, in the pixels of their place, so that the text has the size of the page's.

import { element } from "../dom.js";
import { figure } from "./words.js";

const HEIGHT = 150;
const LEFT = 48;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22;
const MINUTES = [15, 10, 5, 0];
const GAP_MS = 12_000; // between two points that no line joins: the page was hidden, or the server away

/**
 * Draw the last 15 minutes.
 * @param {HTMLElement} place whose content is replaced
 * @param {string} title with its unit
 * @param {{name: string, points: [number, number][]}[]} lines of times (ms since 1970) and values; NaN is a gap
 */
export function drawChart(place, title, lines) {
  const now = Date.now();
  const width = Math.max(240, Math.round(place.clientWidth) || 300);
  const top = niceTop(Math.max(0, ...lines.flatMap(({ points }) => points.map(([, y]) => y)).filter(Number.isFinite)));
  const x = (at) => LEFT + (width - LEFT - RIGHT) * (1 - (now - at) / (MINUTES[0] * 60_000));
  const y = (value) => TOP + (HEIGHT - TOP - BOTTOM) * (1 - value / top);
  const latest = lines.map(({ name, points }) => `${name} ${figure(points.at(-1)?.[1] ?? NaN) || "no requests"}`);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, width, height: HEIGHT, role: "img", "aria-label": `${title}: ${latest.join(", ")}` });
  for (const value of [0, top / 2, top]) {
    svg.append(shape("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(value), y2: y(value) }));
    svg.append(text(figure(value), { class: "tick end", x: LEFT - 6, y: y(value) + 4 }));
  }
  for (const minutes of MINUTES) {
    const place = ["start", "middle", "middle", "end"][MINUTES.indexOf(minutes)];
    svg.append(text(minutes ? `-${minutes} min` : "now", { class: `tick ${place}`, x: x(now - minutes * 60_000), y: HEIGHT - 6 }));
  }
  lines.forEach(({ points }, index) => {
    for (const run of runs(points)) {
      const corners = run.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
      if (corners.length === 1) svg.append(shape("circle", { class: `line-${index} dot`, cx: x(run[0][0]), cy: y(run[0][1]), r: 2 }));
      else svg.append(shape("polyline", { class: `line line-${index}`, points: corners.join(" ") }));
    }
  });
  const legend = lines.map(({ name }, index) => element("span", { class: `legend legend-${index}` }, name));
  place.replaceChildren(element("p", { class: "chart-title" }, title, " ", lines.length > 1 ? legend : null), svg);
}

/** Parts of a bar, of 0 to 1 each, in order. */
export function drawBar(parts) {
  const svg = shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", class: "bar", "aria-hidden": "true" });
  let at = 0;
  parts.forEach((part, index) => {
    svg.append(shape("rect", { class: `part-${index}`, x: 100 * at, y: 0, width: 100 * part, height: 10 }));
    at += part;
  });
  return svg;
}

/** Points without a gap between them. */
function runs(points) {
  const found = [];
  let before = -Infinity;
  for (const point of points) {
    if (!Number.isFinite(point[1])) {
      before = -Infinity;
      continue;
    }
    if (point[0] - before > GAP_MS) found.push([]);
    found.at(-1).push(point);
    before = point[0];
  }
  return found;
}

/** 1, 2, 2.5 or 5 times a power of ten, at least `value`. */
function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].find((step) => step * power >= value) * power;
}

function shape(tag, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function text(words, attributes) {
  const made = shape("text", attributes);
  made.textContent = words;
  return made;
}
