// The service over HTTP: publishing, and reading back what was acknowledged.

import http from "k6/http";
import { node, READ_BACK_MAX } from "./config.js";
import { event, eventId, batch } from "./events.js";
import { acknowledged, duplicates, errors, gaps, lost, publishLatency } from "./metrics.js";

const JSON_HEADERS = { "Content-Type": "application/json" };

/** Makes the run's stream. A window of ids longer than the run shows duplicates for what they are. */
export function createStream(stream) {
  const answer = http.put(`${node(0)}/v1/streams/${stream}`, JSON.stringify({ description: "a load test's", dedup_window: "10m" }), { headers: JSON_HEADERS });
  if (answer.status !== 201 && answer.status !== 200) throw new Error(`no stream ${stream}: ${answer.status} ${answer.body}`);
  return stream;
}

export function publishSingle(stream, turn, extra = {}) {
  const answer = http.post(`${node(turn)}/v1/streams/${stream}/events`, JSON.stringify(event(extra)), {
    headers: { "Content-Type": "application/json", "Event-Id": eventId(), "Event-Subject": "load.single" },
    tags: { name: "publish" },
  });
  account(answer, answer.status === 201, 1);
}

export function publishBatch(stream, turn, count) {
  const answer = http.post(`${node(turn)}/v1/streams/${stream}/batch`, JSON.stringify({ events: batch(count) }), { headers: JSON_HEADERS, tags: { name: "batch" } });
  account(answer, answer.status === 201 && answer.json("count") === count, count);
}

function account(answer, ok, count) {
  errors.add(!ok);
  publishLatency.add(answer.timings.duration);
  if (ok) {
    acknowledged.add(count);
    lost.add(count);
  } else {
    console.error(`publish: ${answer.status} ${answer.error || answer.body}`);
  }
}

export function lastSeq(stream, turn) {
  const answer = http.get(`${node(turn)}/v1/streams/${stream}`, { tags: { name: "stream" } });
  errors.add(answer.status !== 200);
  return answer.status === 200 ? answer.json("last_seq") : 0;
}

/** Reads the whole stream from one node: every acknowledged event must be there, once, with seqs that have no hole. */
export function readBack(stream, turn) {
  const seen = new Set();
  const last = lastSeq(stream, turn);
  const end = Math.min(last, READ_BACK_MAX);
  if (last > end) console.warn(`only the first ${end} of ${last} events are read back: READ_BACK_MAX says so`);
  let next = 1;
  while (next <= end) {
    const answer = http.get(`${node(turn)}/v1/streams/${stream}/events?from=${next}&limit=1000`, { tags: { name: "read" } });
    const events = answer.status === 200 ? answer.json("events") : [];
    errors.add(answer.status !== 200);
    if (events.length === 0) break;
    for (const found of events) {
      if (found.seq !== next) gaps.add(Math.abs(found.seq - next));
      if (seen.has(found.id)) duplicates.add(1);
      seen.add(found.id);
      next = found.seq + 1;
    }
  }
  lost.add(-(seen.size + (last - end)));
}
