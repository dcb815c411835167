// The line below the buttons: what came back, in words.

/** What the panes show and how long it took; of two, which was faster. @param {import("./pane.js").Pane[]} panes */
export function resultWords(panes) {
  const done = panes.filter((pane) => pane.shown);
  const words = done.map(({ result, shown }) => {
    const { model } = result.document;
    return `${model.name} ${model.version}: ${countWords(shown.predictions.length)} in ${result.wall_ms.toFixed(0)} ms`;
  });
  if (done.length < 2) return words.join("");
  const [first, second] = done.map(({ result }) => result.wall_ms);
  const difference = `${Math.abs(second - first).toFixed(0)} ms ${second < first ? "faster" : "slower"}`;
  return `${words.join("; ")} (the second ${difference})`;
}

/** `1 result`, `2 results`. */
export function countWords(count) {
  return `${count} ${count === 1 ? "result" : "results"}`;
}
