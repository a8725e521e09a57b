// What a day looks like, all at once on one stream: single publishes, batches, WebSocket publishers, followers, and readers of pages.
// RATE is that of single publishes; a tenth of it in batches of BATCH, and half of it over CONNECTIONS WebSockets.

import exec from "k6/execution";
import http from "k6/http";
import { BATCH, companions, CONNECTIONS, DURATION, GRACE, node, NODES, openModel, RATE, streamName, SUBSCRIBERS } from "./lib/config.js";
import { createStream, lastSeq, publishBatch, publishSingle, readBack } from "./lib/http.js";
import { errors, gaps, thresholds } from "./lib/metrics.js";
import { follow, publishByClock } from "./lib/socket.js";
import { summary, TREND_STATS } from "./lib/summary.js";

export const options = {
  scenarios: {
    follow: companions("followers", SUBSCRIBERS),
    sockets: companions("sockets", CONNECTIONS),
    singles: openModel("singles"),
    batches: openModel("batches", Math.max(1, Math.round(RATE / 10))),
    pages: openModel("pages", Math.max(1, Math.round(RATE / 10))),
  },
  thresholds: thresholds(),
  summaryTrendStats: TREND_STATS,
  teardownTimeout: "300s",
};

export function setup() {
  return createStream(streamName("mixed"));
}

export function followers(stream) {
  follow(stream, exec.vu.idInTest, DURATION + 2 * GRACE);
}

export function sockets(stream) {
  publishByClock(stream, exec.vu.idInTest, RATE / 2 / CONNECTIONS);
}

export function singles(stream) {
  publishSingle(stream, exec.scenario.iterationInTest);
}

export function batches(stream) {
  publishBatch(stream, exec.scenario.iterationInTest, BATCH);
}

export function pages(stream) {
  const turn = exec.scenario.iterationInTest;
  const from = 1 + ((turn * 37) % Math.max(1, lastSeq(stream, turn)));
  const answer = http.get(`${node(turn)}/v1/streams/${stream}/events?from=${from}&limit=100`, { tags: { name: "page" } });
  errors.add(answer.status !== 200);
  if (answer.status !== 200) return;
  answer.json("events").forEach((found, i) => gaps.add(found.seq === from + i ? 0 : 1));
}

export function teardown(stream) {
  readBack(stream, NODES.length - 1);
}

export const handleSummary = summary("mixed");
