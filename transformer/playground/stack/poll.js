// When to request: every 2 s while the page is visible, later and later while the server is away.

const EVERY_MS = 2000;
const MOST_MS = 30_000;
const PATIENCE_MS = 5_000;

/**
 * Call a function again and again, which may throw where the server is away.
 * @param {(signal: AbortSignal) => Promise<void>} request is never called twice at once
 * @param {(state: {awaySince: Date | null, nextMs: number, error: Error | null}) => void} report after each call, and
 *   each second while the server is away
 * @returns {() => void} which requests at once
 */
export function poll(request, report) {
  let timer = 0;
  let ticker = 0;
  let running = false;
  let failures = 0;
  let awaySince = null;

  async function run() {
    clearTimeout(timer);
    clearInterval(ticker);
    if (running || document.hidden) return;
    running = true;
    let error = null;
    const began = new Date();
    try {
      await request(AbortSignal.timeout(PATIENCE_MS));
      [failures, awaySince] = [0, null];
    } catch (caught) {
      error = caught;
      failures += 1;
      awaySince ??= began;
    }
    running = false;
    wait(Math.min(EVERY_MS * 2 ** Math.max(0, failures - 1), MOST_MS), error);
  }

  function wait(ms, error) {
    const until = Date.now() + ms;
    const tell = () => report({ awaySince, error, nextMs: Math.max(0, until - Date.now()) });
    tell();
    if (document.hidden) return;
    timer = setTimeout(run, ms);
    if (awaySince) ticker = setInterval(tell, 1000);
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    clearInterval(ticker);
    if (!document.hidden) run();
  });
  run();
  return run;
}
