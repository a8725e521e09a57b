// Publishes CloudEvents with the official SDK in every mode, and reads each back in every mode: node with-cloudevents.js STREAM
import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import { CloudEvent, HTTP } from "cloudevents";

const STRUCTURED = "application/cloudevents+json";
const BATCH = "application/cloudevents-batch+json";
const nodes = (process.env.EVERMESH_SERVER ?? "http://127.0.0.1:4701,http://127.0.0.1:4702,http://127.0.0.1:4703").split(",");
let turn = 0;
const nextNode = () => nodes[turn++ % nodes.length];

const order = (stream, n) =>
  new CloudEvent({
    id: `${stream}-${n}`,
    source: "/shop",
    type: "orders.created",
    subject: `order-${n}`,
    time: `2026-11-22T10:15:0${n}.000Z`,
    datacontenttype: "application/json",
    traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    data: { order: n },
  });

/** The SDK writes no batches: one is an array of events in their JSON format. */
const batch = (events) => ({ headers: { "content-type": BATCH }, body: JSON.stringify(events) });

/** What a node answers; after a 503 or a broken connection, another one. A CloudEvent's id is its Event-Id, so trying again is safe. */
async function send(path, options) {
  for (let tries = 0; tries < 20; tries++) {
    try {
      const answer = await fetch(nextNode() + path, options);
      const message = { headers: Object.fromEntries(answer.headers), body: await answer.text() };
      if (answer.ok) return message;
      const problem = JSON.parse(message.body);
      if (!problem.retryable) throw new Error(problem.detail);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // A TypeError is what fetch calls a broken connection.
    }
    await pause(200);
  }
  throw new Error(`${path}: no node answered`);
}

const publish = async (stream, { headers, body }) =>
  JSON.parse((await send(`/v1/streams/${stream}/events`, { method: "POST", headers, body })).body);
const read = async (path, accept) => HTTP.toEvent(await send(path, { headers: { Accept: accept } }));

const [stream] = process.argv.slice(2);
const events = [1, 2, 3, 4].map((n) => order(stream, n));
await publish(stream, HTTP.binary(events[0]));
await publish(stream, HTTP.structured(events[1]));
await publish(stream, batch(events.slice(2)));
// An id that is known is not stored again, in whichever mode it comes.
assert((await publish(stream, HTTP.structured(events[0]))).duplicate);

for (const accept of ["*/*", STRUCTURED]) {
  for (const [at, event] of events.entries()) {
    assert.deepEqual((await read(`/v1/streams/${stream}/events/${at + 1}`, accept)).toJSON(), event.toJSON());
  }
}
const page = await read(`/v1/streams/${stream}/events`, BATCH);
assert.deepEqual(page.map((event) => event.toJSON()), events.map((event) => event.toJSON()));
for (const event of page) console.log(event.id.slice(stream.length + 1), event.subject, JSON.stringify(event.data));
