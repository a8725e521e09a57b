// The client against sockets that the test holds in its hands: no network, no service. `node --test web/client/`

import assert from "node:assert/strict";
import test from "node:test";
import { connect } from "./evermesh.js";

/** Sockets in the order the client opened them; each remembers what was sent. */
function scene(options = {}, nodes = ["http://a", "http://b"]) {
  const sockets = [];
  class Socket {
    readyState = 0;
    sent = [];
    constructor(url, protocol) {
      Object.assign(this, { url, protocol });
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close() {
      this.readyState = 3;
    }
    open() {
      this.readyState = 1;
      this.onopen();
      return this;
    }
    say(frame) {
      this.onmessage({ data: JSON.stringify(frame) });
    }
    die(code = 1006) {
      this.readyState = 3;
      this.onclose({ code });
    }
    last(verb) {
      return this.sent.filter((command) => verb in command).at(-1);
    }
  }
  const mesh = connect(nodes, { WebSocket: Socket, backoffMs: 1, ...options });
  return { mesh, sockets };
}

async function until(condition) {
  for (let i = 0; i < 1000 && !condition(); i += 1) await new Promise((done) => setTimeout(done, 1));
  assert.ok(condition(), String(condition));
}

const event = (seq) => ({ seq, data: { n: seq } });

test("a publish resolves with its ack and has an id", async () => {
  const { mesh, sockets } = scene();
  const outcome = mesh.publish("orders", { a: 1 }, { subject: "x.y" });
  const socket = sockets[0].open();
  assert.equal(socket.url, "ws://a/v1/ws");
  assert.equal(socket.protocol, "evermesh.v1.json");
  const { id, publish } = socket.last("publish");
  assert.deepEqual([publish.stream, publish.subject, publish.data], ["orders", "x.y", { a: 1 }]);
  assert.ok(publish.event_id.length >= 32);
  socket.say({ id, ack: { seq: 7, duplicate: false } });
  assert.deepEqual(await outcome, { seq: 7, duplicate: false });
  mesh.close();
});

test("a publish without an answer goes to the next node under the same id", async () => {
  const { mesh, sockets } = scene();
  const outcome = mesh.publish("orders", 1);
  const first = sockets[0].open().last("publish");
  sockets[0].die();
  await until(() => sockets.length === 2);
  assert.equal(sockets[1].url, "ws://b/v1/ws");
  const second = sockets[1].open().last("publish");
  assert.equal(second.publish.event_id, first.publish.event_id);
  sockets[1].say({ id: second.id, ack: { seq: 1, duplicate: true } });
  assert.deepEqual(await outcome, { seq: 1, duplicate: true });
  mesh.close();
});

test("a refusal that may be tried again is, another is an error", async () => {
  const { mesh, sockets } = scene();
  const tried = mesh.publish("orders", 1);
  const wrong = mesh.publish("bad/name", 1);
  const socket = sockets[0].open();
  const [one, two] = socket.sent;
  socket.say({ id: one.id, error: { code: "no-leader", retryable: true, retry_after_ms: 1 } });
  socket.say({ id: two.id, error: { code: "bad-name", detail: "no", retryable: false } });
  await assert.rejects(wrong, { name: "EvermeshError", code: "bad-name" });
  await until(() => socket.sent.filter((command) => command.id === one.id).length === 2);
  socket.say({ id: one.id, ack: { seq: 1, duplicate: false } });
  assert.equal((await tried).seq, 1);
  mesh.close();
});

test("a subscription goes on after its last event on another node, each event once", async () => {
  const { mesh, sockets } = scene();
  const events = mesh.subscribe("orders", { from: "earliest" });
  const first = sockets[0].open();
  assert.deepEqual(first.last("subscribe").subscribe, { stream: "orders", from: "earliest", credit: 1000 });
  first.say({ id: first.last("subscribe").id, subscribed: { sub: 1, from: 1 } });
  first.say({ sub: 1, events: [event(1), event(2)] });
  assert.equal((await events.next()).value.seq, 1);
  first.die();
  await until(() => sockets.length === 2);
  const second = sockets[1].open();
  assert.equal(second.last("subscribe").subscribe.from, 3);
  assert.equal(second.last("subscribe").subscribe.credit, 999);
  second.say({ id: second.last("subscribe").id, subscribed: { sub: 4, from: 3 } });
  second.say({ sub: 4, events: [event(2), event(3)] });
  assert.equal((await events.next()).value.seq, 2);
  assert.equal((await events.next()).value.seq, 3);
  mesh.close();
  assert.equal((await events.next()).done, true);
});

test("`new` that saw nothing yet goes on where it began", async () => {
  const { mesh, sockets } = scene();
  mesh.subscribe("orders");
  const first = sockets[0].open();
  first.say({ id: first.last("subscribe").id, subscribed: { sub: 1, from: 43 } });
  first.die();
  await until(() => sockets.length === 2);
  assert.equal(sockets[1].open().last("subscribe").subscribe.from, 43);
  mesh.close();
});

test("credit is given back only for what was taken", async () => {
  const { mesh, sockets } = scene();
  const events = mesh.subscribe("orders", { from: 1, credit: 4 });
  const socket = sockets[0].open();
  socket.say({ id: socket.last("subscribe").id, subscribed: { sub: 9, from: 1 } });
  socket.say({ sub: 9, events: [event(1), event(2), event(3), event(4)] });
  await events.next();
  assert.equal(socket.last("credit"), undefined);
  await events.next();
  assert.deepEqual(socket.last("credit").credit, { sub: 9, add: 2 });
  mesh.close();
});

test("a gap is told", async () => {
  const { mesh, sockets } = scene();
  const gaps = [];
  const events = mesh.subscribe("orders", { from: 1, onGap: (gap) => gaps.push(gap) });
  const socket = sockets[0].open();
  socket.say({ id: socket.last("subscribe").id, subscribed: { sub: 1, from: 1 } });
  socket.say({ sub: 1, gap: { from: 1, to: 9 } });
  socket.say({ sub: 1, events: [event(10)] });
  assert.equal((await events.next()).value.seq, 10);
  assert.deepEqual(gaps, [{ from: 1, to: 9 }]);
  mesh.close();
});

test("the nodes are learnt, and a drain moves the connection", async () => {
  const { mesh, sockets } = scene({}, "http://a/");
  sockets[0].open().say({ nodes: [{ name: "n1", url: "http://a" }, { name: "n2", url: "http://c" }] });
  sockets[0].say({ goaway: { reconnect_within_ms: 1 } });
  await until(() => sockets.length === 2);
  assert.equal(sockets[1].url, "ws://c/v1/ws");
  mesh.close();
});

test("a close for good ends everything with an error", async () => {
  const { mesh, sockets } = scene();
  const outcome = mesh.publish("orders", 1);
  const events = mesh.subscribe("orders");
  sockets[0].open().die(4003);
  await assert.rejects(outcome, { code: "refused" });
  await assert.rejects(events.next(), { code: "refused" });
  await assert.rejects(mesh.publish("orders", 1), { code: "refused" });
  assert.equal(sockets.length, 1);
});

test("more commands than the bound are rejected at once", async () => {
  const { mesh } = scene({ maxPending: 1 });
  const first = mesh.publish("orders", 1);
  await assert.rejects(mesh.publish("orders", 2), { code: "too-many-pending" });
  mesh.close();
  await assert.rejects(first, { code: "closed" });
});

test("a node that does not answer is left for the next", async () => {
  const { mesh, sockets } = scene({ connectMs: 5 });
  await until(() => sockets.length >= 2);
  assert.equal(sockets[1].url, "ws://b/v1/ws");
  mesh.close();
});
