// What is published: a little JSON with the publisher's clock and padding, and an id that no other event of the run has.

import exec from "k6/execution";
import { SIZE } from "./config.js";

const PADDING = "x".repeat(SIZE);

export function event(extra = {}) {
  return Object.assign({ sent: Date.now(), padding: PADDING }, extra);
}

/** Unique within a run: the virtual user, its iteration, and a counter for several events of one iteration. */
export function eventId(counter = 0) {
  return `${exec.vu.idInTest}-${exec.vu.iterationInScenario}-${exec.scenario.name}-${counter}`;
}

export function batch(count) {
  const events = [];
  for (let i = 0; i < count; i += 1) events.push({ subject: "load.batch", id: eventId(i), data: event() });
  return events;
}
