// Requests, errors and stages, from the scrapes of /metrics.

import { byId, element } from "../dom.js";
import { drawBar, drawChart } from "./chart.js";
import { duration, figure, reasonWords, statusWords } from "./words.js";

const STAGES = ["queue", "decode", "preprocess", "infer", "postprocess", "then"];
const CHARTS = [
  ["Requests/s", [["requests/s", (figures) => figures.perSecond]]],
  ["Latency, ms", [["p50", (figures) => figures.p50 * 1000], ["p99", (figures) => figures.p99 * 1000]]],
  ["Errors/s", [["errors/s", (figures) => figures.errorsPerSecond]]],
];

/** Show what the scrapes say. */
export function showTraffic(samples) {
  const { inFlight, waiting } = samples.all.at(-1);
  const figures = samples.figuresOf(Number(byId("window").value));
  showNumbers({ figures, inFlight, waiting });
  showCharts(samples.all);
  showErrors(figures);
  showStages(figures);
}

/** A list of names and values. */
export function tiles(rows) {
  return element("dl", { class: "tiles" }, rows.map(([name, value, level = "", id = null]) =>
    element("div", {}, element("dt", {}, name), element("dd", { class: level, id }, value))));
}

function showNumbers({ figures, inFlight, waiting }) {
  const none = figures ? "no requests" : "measuring";
  const latency = (seconds) => {
    if (!figures || !Number.isFinite(seconds)) return none;
    return `${seconds >= figures.beyond ? "over " : ""}${duration(seconds)}`;
  };
  const window = figures ? ` of the last ${Math.round(figures.seconds)} s` : "";
  byId("traffic").replaceChildren(
    tiles([
      ["Requests/s", figures ? figure(figures.perSecond) : none, "", "per-second"],
      ["p50", latency(figures?.p50), "", "p50"],
      ["p99", latency(figures?.p99), "", "p99"],
      ["Errors/s", figures ? figure(figures.errorsPerSecond) : none, figures?.errorsPerSecond ? "bad" : "", "errors-per-second"],
      ["In the queue", figure(waiting), waiting ? "warn" : "", "waiting"],
      ["In progress", figure(inFlight), "", "in-flight"],
    ]),
    element("p", { class: "faint" }, `Requests for predictions over HTTP and gRPC${window}, of the process that responded. `,
      "p50 and p99 are of all responses, errors and rejections among them; a rejection takes less time than a result."),
  );
}

function showCharts(all) {
  const place = byId("charts");
  if (!place.children.length) place.append(...CHARTS.map(() => element("figure")));
  CHARTS.forEach(([title, lines], index) => {
    const drawn = lines.map(([name, value]) => ({ name, points: all.map(({ at, figures }) => [at, figures ? value(figures) : NaN]) }));
    drawChart(place.children[index], title, drawn);
  });
}

function showErrors(figures) {
  const rows = [
    ...(figures?.errors ?? []).map(({ status, count }) => [status, statusWords(status), count]),
    ...(figures?.rejected ?? []).map(({ reason, count }) => ["by reason", reasonWords(reason), count]),
  ];
  const table = () => scrolled("Errors and rejections", element("table", {},
    element("thead", {}, element("tr", {}, heading("Status"), heading("Reason"), heading("Responses", "number"), heading("per s", "number"))),
    element("tbody", {}, rows.map(([status, words, count]) => element("tr", {},
      element("td", {}, status), element("td", {}, words), element("td", { class: "number" }, figure(count)),
      element("td", { class: "number" }, figure(count / figures.seconds)))))));
  byId("errors").replaceChildren(rows.length ? table() : element("p", { class: "faint" }, figures ? "None." : "Measuring."));
}

function showStages(figures) {
  const rows = figures?.stages ?? [];
  if (!rows.length) {
    byId("stages").replaceChildren(element("p", { class: "faint" }, figures ? "No requests." : "Measuring."));
    return;
  }
  const shown = STAGES.filter((stage) => stage !== "then" || rows.some(({ ms }) => stage in ms));
  const total = ({ ms }) => shown.reduce((sum, stage) => sum + (ms[stage] ?? 0), 0);
  const longest = Math.max(...rows.map(total)) || 1;
  byId("stages").replaceChildren(scrolled("Where the time goes", element("table", {},
    element("thead", {}, element("tr", {}, heading("Model"), heading("Mean, ms", "number"), heading("Stages", "bars"),
      shown.map((stage, index) => element("th", { class: "number", scope: "col" }, element("span", { class: `key-${index}` }, stage))))),
    element("tbody", {}, rows.map((row) => element("tr", { "data-model": row.model },
      element("th", { scope: "row" }, row.model), element("td", { class: "number" }, figure(total(row))),
      element("td", { class: "bars" }, drawBar(shown.map((stage) => (row.ms[stage] ?? 0) / longest))),
      shown.map((stage) => element("td", { class: "number" }, figure(row.ms[stage] ?? NaN)))))))));
}

/** A table that scrolls by itself on a small screen, also by keys. */
export function scrolled(name, table) {
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table);
}

/** The head of a column. */
export function heading(words, kind = null) {
  return element("th", { scope: "col", class: kind }, words);
}
