// Publishes ten orders with fetch, and follows the stream until it has read ten: node with-fetch.js STREAM
// EVERMESH_SERVER names the nodes, with commas between them. Any of them takes any request.
import { setTimeout as pause } from "node:timers/promises";

const nodes = (process.env.EVERMESH_SERVER ?? "http://127.0.0.1:4701,http://127.0.0.1:4702,http://127.0.0.1:4703").split(",");
let turn = 0;
const nextNode = () => nodes[turn++ % nodes.length];

/** Resolves with the event's seq. Every try has the same Event-Id, so the event is stored once, whatever became of the tries before. */
async function publish(stream, eventId, data) {
  for (let tries = 0; tries < 20; tries++) {
    try {
      const headers = { "Content-Type": "application/json", "Event-Id": eventId };
      const answer = await fetch(`${nextNode()}/v1/streams/${stream}/events`, { method: "POST", headers, body: JSON.stringify(data) });
      const body = await answer.json();
      if (answer.ok) return body.seq;
      if (!body.retryable) throw new Error(body.detail);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // A TypeError is what fetch calls a broken connection.
    }
    await pause(200);
  }
  throw new Error(`${eventId} was not acknowledged`);
}

/** Every event from the seq `from` on, and each that comes, as NDJSON. When the answer ends, the next node goes on behind what came. */
async function* follow(stream, from = 1) {
  for (;;) {
    try {
      const url = `${nextNode()}/v1/streams/${stream}/events?from=${from}&wait=20s`;
      const answer = await fetch(url, { headers: { Accept: "application/x-ndjson" } });
      for await (const line of lines(answer)) {
        const { seq, data, gap, error } = JSON.parse(line);
        if (gap) console.error("retention removed", gap);
        if (seq) yield { seq, data };
        if (!error) from = (seq ?? gap.to) + 1;
      }
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    await pause(200);
  }
}

/** The whole lines of an answer, as they come. */
async function* lines(answer) {
  if (answer.status < 500 && !answer.ok) throw new Error((await answer.json()).detail);
  if (!answer.ok) return;
  let rest = "";
  for await (const text of answer.body.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop();
    yield* parts.filter((line) => line);
  }
}

const [stream] = process.argv.slice(2);
for (let n = 1; n <= 10; n++) await publish(stream, `${stream}-${n}`, { order: n });
let read = 0;
for await (const { seq, data } of follow(stream)) {
  console.log(seq, JSON.stringify(data));
  if (++read === 10) break;
}
