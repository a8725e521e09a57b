// SUBSCRIBERS WebSockets, spread over the nodes, follow one stream while RATE events a second are published to all nodes in turn.
// Every subscriber must be given every event, once, in order.

import exec from "k6/execution";
import { companions, DURATION, GRACE, NODES, openModel, streamName, SUBSCRIBERS } from "./lib/config.js";
import { createStream, publishSingle, readBack } from "./lib/http.js";
import { thresholds } from "./lib/metrics.js";
import { follow } from "./lib/socket.js";
import { summary, TREND_STATS } from "./lib/summary.js";

const HEAD_START = 1; // seconds for the subscribers to connect, so that latency is that of followers

export const options = {
  scenarios: { subscribe: companions("subscribe", SUBSCRIBERS), publish: openModel("publish", undefined, `${HEAD_START}s`) },
  thresholds: thresholds(),
  summaryTrendStats: TREND_STATS,
  teardownTimeout: "120s",
};

export function setup() {
  return createStream(streamName("fanout-websocket"));
}

export function subscribe(stream) {
  follow(stream, exec.vu.idInTest, HEAD_START + DURATION + GRACE);
}

export function publish(stream) {
  publishSingle(stream, exec.scenario.iterationInTest);
}

export function teardown(stream) {
  readBack(stream, NODES.length - 1);
}

export const handleSummary = summary("fanout-websocket");
