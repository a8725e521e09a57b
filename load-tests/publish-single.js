// One event a request, on all nodes in turn, RATE a second: what a publish costs, and that nothing acknowledged is missing.

import exec from "k6/execution";
import { NODES, openModel, streamName } from "./lib/config.js";
import { createStream, publishSingle, readBack } from "./lib/http.js";
import { thresholds } from "./lib/metrics.js";
import { summary, TREND_STATS } from "./lib/summary.js";

export const options = { scenarios: { publish: openModel("publish") }, thresholds: thresholds(), summaryTrendStats: TREND_STATS, teardownTimeout: "120s" };

export function setup() {
  return createStream(streamName("publish-single"));
}

export function publish(stream) {
  publishSingle(stream, exec.scenario.iterationInTest);
}

export function teardown(stream) {
  readBack(stream, NODES.length - 1);
}

export const handleSummary = summary("publish-single");
