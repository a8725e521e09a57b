// CONNECTIONS WebSockets, spread over the nodes, that together publish RATE events a second by the clock, without waiting for answers.

import exec from "k6/execution";
import { companions, CONNECTIONS, NODES, RATE, streamName } from "./lib/config.js";
import { createStream, readBack } from "./lib/http.js";
import { thresholds } from "./lib/metrics.js";
import { publishByClock } from "./lib/socket.js";
import { summary, TREND_STATS } from "./lib/summary.js";

export const options = { scenarios: { publish: companions("publish", CONNECTIONS) }, thresholds: thresholds(), summaryTrendStats: TREND_STATS, teardownTimeout: "120s" };

export function setup() {
  return createStream(streamName("publish-websocket"));
}

export function publish(stream) {
  publishByClock(stream, exec.vu.idInTest, RATE / CONNECTIONS);
}

export function teardown(stream) {
  readBack(stream, NODES.length - 1);
}

export const handleSummary = summary("publish-websocket");
