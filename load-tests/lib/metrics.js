// The metrics that every script shares, and what each must be at the end.
//
// - A gap is a seq that a reader was not given; a duplicate is one that it was given twice, or an id that is stored twice.
// - `lost` counts up with every acknowledged event and down with every event found by reading back: it must end at 0.
// - Times are in milliseconds. `delivery_latency` runs from just before the publish is sent to the reader's hands; publisher and
//   reader share this machine's clock, whose ticks here are whole milliseconds.

import { Counter, Rate, Trend } from "k6/metrics";

export const errors = new Rate("errors");
export const acknowledged = new Counter("events_acknowledged");
export const delivered = new Counter("events_delivered");
export const gaps = new Counter("gaps");
export const duplicates = new Counter("duplicates");
export const lost = new Counter("lost");
export const missing = new Counter("missing_at_end");
export const publishLatency = new Trend("publish_latency", true);
export const deliveryLatency = new Trend("delivery_latency", true);

const MUST_BE_ZERO = { errors: "rate==0", gaps: "count==0", duplicates: "count==0", lost: "count==0", missing_at_end: "count==0", dropped_iterations: "count==0" };

/** The thresholds of a script that uses these metrics; `extra` adds its own. */
export function thresholds(extra = {}) {
  const all = {};
  for (const name of Object.keys(MUST_BE_ZERO)) all[name] = [MUST_BE_ZERO[name]];
  return Object.assign(all, extra);
}

/** Follows one stream's seqs: each must be one more than the last. */
export class Continuity {
  constructor(first) {
    this.next = first;
    this.received = 0;
  }

  take(seq) {
    this.received += 1;
    delivered.add(1);
    if (seq < this.next) {
      duplicates.add(1);
      return;
    }
    if (seq > this.next) gaps.add(seq - this.next);
    this.next = seq + 1;
  }
}
