// Requests to this server: the key of the tab's session, and errors in words with the next step.

const KEY = "nereid-api-key";

/** What went wrong: `message` in words, `next` the next step, `code` as docs/api.md has it, `status` 0 without a response. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = "", next = "", retryAfterS = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, next, retryAfterS });
  }
}

const NEXT_STEPS = {
  missing_api_key: "Type your API key in at the top; it is kept until this tab is closed.",
  unknown_api_key: "Type another API key in at the top.",
  queue_full: "The server has as much work as it takes; the request may succeed a moment later.",
  memory_full: "The server has as much work as it takes; the request may succeed a moment later.",
  invalid_image: "Choose another image.",
  unsupported_media: "Convert the image to JPEG or PNG.",
  payload_too_large: "Choose a smaller image, or raise the server's limit.",
  model_not_found: "Choose another model.",
  version_not_found: "Choose another version.",
  no_ready_version: "A version is being loaded; it serves soon.",
  no_servable_version: "Upload another version; the stack's page says what is wrong with this one.",
  not_ready: "The first models are being loaded.",
  predictor_unavailable: "Triton is away or starting; it is started again.",
  predictor_timeout: "Triton is overloaded or hangs; one that hangs is started again. Send it again in a moment.",
  deadline_exceeded: "Send it again in a moment; the server has more work than it finishes in time.",
  overloaded: "The server has as much work as it takes; the request may succeed a moment later.",
  out_of_memory: "Choose a smaller image, or send it again in a moment.",
  shutting_down: "The server is being stopped; another one may respond a moment later.",
  versions_changing: "Another version is being loaded; send it again in a moment.",
  body_timeout: "The image came too slowly: choose a smaller one.",
  predictor_failed: "The server's log has the reason, under the request id.",
  internal_error: "Report it with the request id.",
};

const OTHERWISE = "Send it again; if it fails again, the log of the server has the reason.";

/** The API key of this tab, "" for none. */
export function apiKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

/** Keep an API key until the tab is closed; "" forgets it. */
export function setApiKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

/**
 * A request to this server; the path is relative to the page, so that it may be served below another path.
 * @returns {Promise<Response>} whose status is one of success
 * @throws {ApiError}, or the DOMException of a signal that aborted it
 */
export async function request(path, { headers = {}, ...options } = {}) {
  const key = apiKey();
  let response;
  try {
    response = await fetch(path, { ...options, headers: { ...headers, ...(key && { "X-API-Key": key }) } });
  } catch (error) {
    if (error.name === "AbortError" || error.name === "TimeoutError") throw error;
    throw new ApiError("The server did not respond.", { next: "Is it running, and is the network there?" });
  }
  if (response.ok) return response;
  throw await read(response);
}

/** The JSON of a response. */
export async function getJson(path, options) {
  return (await request(path, options)).json();
}

async function read(response) {
  const { status } = response;
  const text = await response.text();
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // Of a proxy in between.
  }
  const code = typeof body?.code === "string" ? body.code : "";
  const words = typeof body?.error === "string" ? body.error : `HTTP status ${status} ${response.statusText}`;
  const retryAfterS = Number(response.headers.get("Retry-After")) || 0;
  return new ApiError(words, { status, code, retryAfterS, next: NEXT_STEPS[code] ?? (status >= 500 ? OTHERWISE : "") });
}
