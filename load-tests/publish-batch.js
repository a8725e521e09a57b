// BATCH events a request, on all nodes in turn, RATE requests a second.

import exec from "k6/execution";
import { BATCH, NODES, openModel, streamName } from "./lib/config.js";
import { createStream, publishBatch, readBack } from "./lib/http.js";
import { thresholds } from "./lib/metrics.js";
import { summary, TREND_STATS } from "./lib/summary.js";

export const options = { scenarios: { publish: openModel("publish") }, thresholds: thresholds(), summaryTrendStats: TREND_STATS, teardownTimeout: "300s" };

export function setup() {
  return createStream(streamName("publish-batch"));
}

export function publish(stream) {
  publishBatch(stream, exec.scenario.iterationInTest, BATCH);
}

export function teardown(stream) {
  readBack(stream, NODES.length - 1);
}

export const handleSummary = summary("publish-batch");
