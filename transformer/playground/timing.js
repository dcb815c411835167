// Where the time of a request went, as a bar.

import { element } from "./dom.js";

const PARTS = ["network", "queue", "decode", "preprocess", "infer", "postprocess", "then", "other", "client"];

/** Milliseconds of each part: the server's own stages, the network with what waits in the browser, and the page itself. */
export function splitTime({ document, wall_ms, client }) {
  const { total, ...stages } = document.timing_ms;
  const known = sum(Object.values(stages));
  const times = { ...stages, network: Math.max(wall_ms - total, 0), other: Math.max(total - known, 0), client: sum(Object.values(client)) };
  return PARTS.filter((part) => part in times).map((part) => ({ part, ms: times[part] }));
}

/** The bar, and the same in words below it. */
export function timeBar(result) {
  const times = splitTime(result);
  const whole = sum(times.map(({ ms }) => ms));
  const words = times.map(({ part, ms }) => `${part} ${ms.toFixed(1)} ms`).join(", ");
  const bar = element("div", { class: "bar", role: "img", "aria-label": `Time: ${words}` });
  for (const { part, ms } of times) {
    const piece = element("span", { class: `time ${part}`, title: part === "client" ? clientWords(result.client) : `${part} ${ms.toFixed(2)} ms` });
    piece.style.flexGrow = String(ms / whole);
    bar.append(piece);
  }
  const legend = times
    .filter(({ ms }) => ms >= 0.05)
    .map(({ part, ms }) => element("li", {}, element("span", { class: `dot ${part}` }), `${part} `, element("b", {}, ms.toFixed(1))));
  return element("div", { class: "timing" },
    element("p", {}, element("b", {}, `${whole.toFixed(1)} ms`), element("span", { class: "faint" }, ` from input to drawing, ${kilobytes(result.bytes)} of JSON`)),
    bar,
    element("ul", { class: "legend", "aria-hidden": "true" }, legend));
}

function clientWords({ decode, read, draw }) {
  return `client: decoding the image ${decode.toFixed(1)} ms, reading the response ${read.toFixed(1)} ms, drawing ${draw.toFixed(1)} ms`;
}

function sum(numbers) {
  return numbers.reduce((total, each) => total + each, 0);
}

function kilobytes(bytes) {
  return bytes < 1000 ? `${bytes} B` : `${(bytes / 1000).toFixed(1)} kB`;
}
