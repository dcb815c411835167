// Numbers, times and codes of /status and /metrics in words.

const CLOCK = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const DAY = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

/** `12:03:05`, with the day where it is not today's; "" for none. */
export function clock(time) {
  if (!time) return "";
  const date = new Date(time);
  if (Number.isNaN(date.getTime())) return String(time);
  const today = date.toDateString() === new Date().toDateString();
  return `${today ? "" : `${DAY.format(date)}, `}${CLOCK.format(date)}`;
}

/** Three digits: 0.012, 1.25, 132. */
export function figure(value) {
  if (!Number.isFinite(value)) return "";
  if (value === 0) return "0";
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

/** Seconds as ms or s. */
export function duration(seconds) {
  return seconds < 1 ? `${figure(seconds * 1000)} ms` : `${figure(seconds)} s`;
}

const STATUSES = {
  400: "the request is invalid", 401: "no API key", 403: "an API key that is unknown", 404: "the model or version is unknown",
  408: "the body came too slowly", 413: "the body or the image is too large", 415: "the format is not supported",
  429: "the queue was full", 499: "the client had gone", 500: "a defect; the log has the reason",
  502: "Triton failed", 503: "Triton or the model was away", 504: "the deadline was exceeded",
  INVALID_ARGUMENT: "the request is invalid", UNAUTHENTICATED: "no API key", PERMISSION_DENIED: "an API key that is unknown",
  NOT_FOUND: "the model or version is unknown", RESOURCE_EXHAUSTED: "the queue was full", CANCELLED: "the client had gone",
  INTERNAL: "a defect, or Triton failed", UNAVAILABLE: "Triton or the model was away", DEADLINE_EXCEEDED: "the deadline was exceeded",
};
const REASONS = {
  "line full": "the queue was full", "bodies full": "the memory for bodies was full", deadline: "the deadline was exceeded",
  "slow body": "the body came too slowly", "client gone": "the client had gone before its response",
};

/** What a status of HTTP or gRPC means here. */
export function statusWords(status) {
  return STATUSES[status] ?? "";
}

/** What a reason of `nereid_refused_total` means. */
export function reasonWords(reason) {
  return REASONS[reason] ?? reason;
}
