// What the environment says about a run, with defaults that suit a laptop. Every script takes all of these.

function number(name, fallback) {
  const text = __ENV[name];
  if (text === undefined || text === "") return fallback;
  const value = Number(text);
  if (!Number.isFinite(value) || value < 0) throw new Error(`${name} must be a number, not ${text}`);
  return value;
}

/** The API addresses; requests go to them in turn. */
export const NODES = (__ENV.NODES || "http://127.0.0.1:4701,http://127.0.0.1:4702,http://127.0.0.1:4703").split(",").map((url) => url.replace(/\/$/, ""));
/** Requests (or single events over a WebSocket) a second, over all nodes. */
export const RATE = number("RATE", 200);
/** Seconds of publishing. */
export const DURATION = number("DURATION", 30);
/** Bytes of one event's padding. */
export const SIZE = number("SIZE", 256);
/** Events of one batch. */
export const BATCH = number("BATCH", 100);
/** Readers of a fan-out. */
export const SUBSCRIBERS = number("SUBSCRIBERS", 50);
/** WebSockets that publish. */
export const CONNECTIONS = number("CONNECTIONS", 10);
/** Events of one answer in fanout-sse.js. */
export const LIMIT = number("LIMIT", 10);
/** Virtual users made ready for the requests under way, and how many there may be at most. */
export const VUS = number("VUS", 50);
export const VUS_MAX = number("VUS_MAX", 500);
/** Seconds that readers and answers have to finish after the last publish. */
export const GRACE = number("GRACE", 5);
/** Most events that a run reads back to check them. */
export const READ_BACK_MAX = number("READ_BACK_MAX", 500000);

/** The stream of this run: a new one, unless STREAM names it. Called in setup(), since every virtual user has its own clock. */
export function streamName(script) {
  return __ENV.STREAM || `load-${script}-${Date.now().toString(36)}`;
}

/** The node whose turn it is. */
export function node(turn) {
  return NODES[turn % NODES.length];
}

export function socketUrl(turn, path) {
  return node(turn).replace(/^http/, "ws") + path;
}

/** An open model: so many iterations a second begin, whether or not the earlier ones have an answer. */
export function openModel(exec, rate = RATE, startTime = "0s") {
  return { executor: "constant-arrival-rate", exec, rate, timeUnit: "1s", duration: `${DURATION}s`, preAllocatedVUs: VUS, maxVUs: VUS_MAX, startTime, gracefulStop: "30s" };
}

/** So many virtual users that each do one long thing: hold a socket, follow a stream. */
export function companions(exec, vus) {
  return { executor: "per-vu-iterations", exec, vus, iterations: 1, maxDuration: `${DURATION + GRACE + 60}s`, gracefulStop: "5s" };
}
