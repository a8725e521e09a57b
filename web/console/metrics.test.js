// Run by `./test web`, with node's own runner.

import assert from "node:assert/strict";
import { test } from "node:test";
import { bytes, compact, lasting, milliseconds, quoted, shorten } from "./format.js";
import { parse, quantile, since, sum } from "./metrics.js";

const TEXT = `# HELP evermesh_publish_events Events.
# TYPE evermesh_publish_events counter
evermesh_publish_events_total 42
evermesh_elections_won_total{cause="timer"} 2
evermesh_elections_won_total{cause="evidence"} 3
evermesh_publish_seconds_sum 1.5
evermesh_publish_seconds_count 10
evermesh_publish_seconds_bucket{le="0.001"} 4
evermesh_publish_seconds_bucket{le="0.002"} 8
evermesh_publish_seconds_bucket{le="+Inf"} 10
# EOF
`;

test("samples are read, those with labels summed, buckets kept in order", () => {
  const { samples, buckets } = parse(TEXT);
  assert.equal(samples.get("evermesh_publish_events_total"), 42);
  assert.equal(samples.get("evermesh_elections_won_total"), 5);
  assert.deepEqual(buckets.get("evermesh_publish_seconds_bucket"), [[0.001, 4], [0.002, 8], [Infinity, 10]]);
});

test("a quantile is even within its bucket, and never beyond the last bound", () => {
  const buckets = [[0.001, 4], [0.002, 8], [Infinity, 10]];
  assert.equal(quantile(buckets, 0.2), 0.0005);
  assert.equal(quantile(buckets, 0.6), 0.0015);
  assert.equal(quantile(buckets, 0.99), 0.002);
  assert.equal(quantile([[1, 0], [Infinity, 0]], 0.5), null);
  assert.equal(quantile(null, 0.5), null);
});

test("what was counted between two looks; nothing after a restart", () => {
  const before = [[1, 2], [Infinity, 3]];
  assert.deepEqual(since([[1, 5], [Infinity, 7]], before), [[1, 3], [Infinity, 4]]);
  assert.equal(since([[1, 0], [Infinity, 1]], before), null);
  assert.equal(since(before, undefined), null);
  assert.deepEqual(sum([before, null, before]), [[1, 4], [Infinity, 6]]);
});

test("numbers as people read them", () => {
  const shown = [0, 0.25, 1, 8.24, 99.96, 431, 999.96, 1000, 12_400, 1e6, 2.5e9].map(compact);
  assert.deepEqual(shown, ["0", "0.3", "1", "8.2", "100", "431", "1.0k", "1k", "12.4k", "1M", "2.5G"]);
  assert.deepEqual([0, 1023, 1024, 1536, 5 * 1024 ** 3].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "5.0 GiB"]);
  assert.deepEqual([0.84, 1.26, 12.6, 1400, NaN].map(milliseconds), ["0.84 ms", "1.3 ms", "13 ms", "1.4 s", "–"]);
  assert.deepEqual([400, 59_000, 60_000, 7.2e6, 9e7].map(lasting), ["0 s", "59 s", "1 min", "2 h", "1 d"]);
  assert.equal(shorten("a-very-long-name-of-a-stream", 13), "a-very-l…ream");
  assert.deepEqual([quoted("a/b:c"), quoted("it's")], ["a/b:c", "'it'\\''s'"]);
});
