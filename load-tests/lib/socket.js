// The service over WebSockets: a follower of one stream, and a connection that publishes on a clock.

import { WebSocket } from "k6/experimental/websockets";
import { DURATION, GRACE, node, socketUrl } from "./config.js";
import { event, eventId } from "./events.js";
import { acknowledged, Continuity, deliveryLatency, duplicates, errors, lost, missing, publishLatency } from "./metrics.js";
import { lastSeq } from "./http.js";

const TICK_MS = 10;

/** Follows a stream from its first event until `seconds` have passed, then compares what came with what is there. */
export function follow(stream, turn, seconds) {
  const socket = new WebSocket(socketUrl(turn, `/v1/streams/${stream}/ws?from=earliest`));
  const continuity = new Continuity(1);
  let closing = false;
  socket.onopen = () => {
    errors.add(false);
    setTimeout(() => {
      closing = true;
      missing.add(Math.max(0, lastSeq(stream, turn) + 1 - continuity.next));
      socket.close();
    }, seconds * 1000);
  };
  socket.onmessage = (message) => {
    const arrived = Date.now();
    const received = JSON.parse(message.data);
    continuity.take(received.seq);
    if (received.data && received.data.sent) deliveryLatency.add(arrived - received.data.sent);
  };
  socket.onerror = (error) => fail(closing, `follow ${node(turn)}: ${error.error}`);
  socket.onclose = () => fail(closing, `follow ${node(turn)}: closed by the node`);
}

/** Publishes `rate` events a second by the clock, whether or not the earlier ones have an answer, and waits for the last answers. */
export function publishByClock(stream, turn, rate) {
  const socket = new WebSocket(socketUrl(turn, "/v1/ws"), ["evermesh.v1.json"]);
  const pending = new Map();
  let sent = 0, lastAck = 0, closing = false;

  const finish = (since) => {
    if (pending.size > 0 && Date.now() - since < GRACE * 1000) {
      setTimeout(() => finish(since), 50);
      return;
    }
    closing = true;
    missing.add(pending.size);
    socket.close();
  };

  socket.onopen = () => {
    const begin = Date.now();
    const timer = setInterval(() => {
      const elapsed = Math.min(Date.now() - begin, DURATION * 1000);
      for (const due = Math.floor((elapsed * rate) / 1000); sent < due; ) {
        sent += 1;
        pending.set(sent, Date.now());
        socket.send(JSON.stringify({ id: sent, publish: { stream, subject: "load.socket", event_id: eventId(sent), data: event() } }));
      }
      if (elapsed >= DURATION * 1000) {
        clearInterval(timer);
        finish(Date.now());
      }
    }, TICK_MS);
  };
  socket.onmessage = (message) => {
    const answer = JSON.parse(message.data);
    if (!pending.has(answer.id)) return; // `nodes` and other pushes have no id
    publishLatency.add(Date.now() - pending.get(answer.id));
    pending.delete(answer.id);
    errors.add(!answer.ack);
    if (!answer.ack) {
      console.error(`publish: ${message.data}`);
      return;
    }
    acknowledged.add(1);
    lost.add(1);
    // What one socket sends to one stream is stored in the order sent.
    if (answer.ack.duplicate || answer.ack.seq <= lastAck) duplicates.add(1);
    lastAck = answer.ack.seq;
  };
  socket.onerror = (error) => fail(closing, `publish ${node(turn)}: ${error.error}`);
  socket.onclose = () => fail(closing, `publish ${node(turn)}: closed by the node`);
}

function fail(closing, what) {
  if (closing) return;
  errors.add(true);
  console.error(what);
}
