// SUBSCRIBERS readers follow one stream over SSE while RATE events a second are published to all nodes in turn.
//
// k6 hands over a response only when it has ended, so each reader asks for LIMIT events at a time (the node ends the stream after
// them) and goes on from the next seq. Gaps and duplicates are checked over all events; the delivery latency is that of each
// answer's last event, the one that ended it, since only that one's arrival is known. LIMIT=1 measures every event.

import exec from "k6/execution";
import http from "k6/http";
import { companions, DURATION, GRACE, LIMIT, node, NODES, openModel, streamName, SUBSCRIBERS } from "./lib/config.js";
import { event, eventId } from "./lib/events.js";
import { acknowledged, Continuity, deliveryLatency, errors, lost, missing, thresholds } from "./lib/metrics.js";
import { createStream, lastSeq, publishSingle, readBack } from "./lib/http.js";
import { summary, TREND_STATS } from "./lib/summary.js";

const HEAD_START = 1;

export const options = {
  scenarios: {
    subscribe: companions("subscribe", SUBSCRIBERS),
    publish: openModel("publish", undefined, `${HEAD_START}s`),
    close: { executor: "per-vu-iterations", exec: "close", vus: 1, iterations: 1, startTime: `${HEAD_START + DURATION + GRACE}s` },
  },
  thresholds: thresholds(),
  summaryTrendStats: TREND_STATS,
  teardownTimeout: "120s",
};

export function setup() {
  return createStream(streamName("fanout-sse"));
}

export function subscribe(stream) {
  const turn = exec.vu.idInTest;
  const continuity = new Continuity(1);
  let more = true;
  while (more) {
    const answer = http.get(`${node(turn)}/v1/streams/${stream}/events?from=${continuity.next}&limit=${LIMIT}`, {
      headers: { Accept: "text/event-stream" },
      timeout: `${DURATION + GRACE + 30}s`,
      tags: { name: "sse" },
    });
    const arrived = Date.now();
    errors.add(answer.status !== 200);
    if (answer.status !== 200) {
      console.error(`sse: ${answer.status} ${answer.error || answer.body}`);
      return;
    }
    const events = parse(answer.body);
    for (const received of events) continuity.take(received.seq);
    const last = events[events.length - 1];
    if (last && !last.data.closing) deliveryLatency.add(arrived - last.data.sent);
    more = events.length > 0 && !events.some((received) => received.data.closing);
  }
  // A reader at the end has taken up to LIMIT - 1 of the closing events less than there are.
  missing.add(Math.max(0, lastSeq(stream, turn) - LIMIT + 1 - (continuity.next - 1)));
}

/** The JSON of each SSE event; lines other than `data:` (ids, comments) are not needed here. */
function parse(body) {
  return body.split("\n").filter((line) => line.startsWith("data:")).map((line) => JSON.parse(line.slice(5)));
}

export function publish(stream) {
  publishSingle(stream, exec.scenario.iterationInTest);
}

/** As many events as complete every reader's last answer, wherever it stands. */
export function close(stream) {
  const events = [];
  for (let i = 0; i < LIMIT; i += 1) events.push({ id: eventId(i), data: event({ closing: true }) });
  const answer = http.post(`${node(0)}/v1/streams/${stream}/batch`, JSON.stringify({ events }), { headers: { "Content-Type": "application/json" } });
  errors.add(answer.status !== 201);
  acknowledged.add(LIMIT);
  lost.add(LIMIT);
}

export function teardown(stream) {
  readBack(stream, NODES.length - 1);
}

export const handleSummary = summary("fanout-sse");
