// The connection: which node, when again, what becomes of publishes.

import assert from "node:assert/strict";
import test from "node:test";
import { connect } from "../evermesh.js";
import { scene, settled } from "./scene.js";

const NODES = { nodes: [{ name: "n1", url: "http://a" }, { name: "n2", url: "http://c" }, { name: "n3", url: "http://d" }] };

test("a publish resolves with its ack and has an id", async (t) => {
  const { mesh, sockets } = scene(t);
  const outcome = mesh.publish("orders", { a: 1 }, { subject: "x.y", expectedLastSeq: 0, headers: { k: "v" }, contentType: "application/a+json" });
  const socket = sockets[0].open();
  assert.deepEqual([socket.url, socket.protocol], ["ws://a/v1/ws", "evermesh.v1.json"]);
  const { id, publish } = socket.last("publish");
  const { event_id, ...rest } = publish;
  assert.deepEqual(rest, {
    stream: "orders",
    subject: "x.y",
    headers: { k: "v" },
    content_type: "application/a+json",
    data: { a: 1 },
    expected_last_seq: 0,
  });
  assert.ok(event_id.length >= 32);
  assert.equal(mesh.pending, 1);
  socket.say({ id, ack: { seq: 7, duplicate: false } });
  assert.deepEqual(await outcome, { seq: 7, duplicate: false });
  assert.equal(mesh.pending, 0);
});

test("bytes travel as base64", async (t) => {
  const { mesh, sockets } = scene(t);
  const bytes = Uint8Array.from({ length: 20000 }, (_, i) => i % 256);
  mesh.publish("blobs", bytes.subarray(1, 4)).catch(() => {});
  mesh.publish("blobs", bytes.buffer).catch(() => {});
  const [part, whole] = sockets[0].open().all("publish").map(({ publish }) => publish);
  assert.deepEqual([part.data_base64, part.data], ["AQID", undefined]);
  assert.equal(whole.data_base64, Buffer.from(bytes).toString("base64"));
});

test("a batch has an id for each event, and keeps those that it came with", async (t) => {
  const { mesh, sockets } = scene(t);
  const outcome = mesh.publishBatch("orders", [{ data: 1, id: "own" }, { data: 2, contentType: "text/plain" }], { expectedLastSeq: 4 });
  const { id, publish_batch } = sockets[0].open().last("publish_batch");
  const [one, two] = publish_batch.events;
  assert.deepEqual([publish_batch.stream, publish_batch.expected_last_seq], ["orders", 4]);
  assert.deepEqual(one, { id: "own", data: 1 });
  assert.deepEqual([two.content_type, two.id.length >= 32], ["text/plain", true]);
  sockets[0].say({ id, ack: { first_seq: 5, last_seq: 6, count: 2, duplicates: 0 } });
  assert.deepEqual(await outcome, { first_seq: 5, last_seq: 6, count: 2, duplicates: 0 });
});

test("publishes without an answer go to the next node under the same ids, in their order", async (t) => {
  const { mesh, sockets, next } = scene(t);
  const outcomes = [1, 2, 3].map((n) => mesh.publish("orders", n));
  const first = sockets[0].open().all("publish");
  sockets[0].say({ id: first[1].id, ack: { seq: 2, duplicate: false } });
  sockets[0].die();
  const socket = await next();
  assert.equal(socket.url, "ws://b/v1/ws");
  const again = socket.open().all("publish");
  assert.deepEqual(again, [first[0], first[2]]);
  socket.say({ id: again[0].id, ack: { seq: 1, duplicate: true } });
  socket.say({ id: again[1].id, ack: { seq: 3, duplicate: false } });
  assert.deepEqual((await Promise.all(outcomes)).map(({ seq }) => seq), [1, 2, 3]);
});

test("a refusal that may be tried again is, another is an error with the event's id", async (t) => {
  const { mesh, sockets, clock } = scene(t);
  const tried = mesh.publish("orders", 1);
  const wrong = assert.rejects(mesh.publish("bad/name", 1, { id: "e-9" }), { name: "EvermeshError", code: "invalid-name", message: "no", eventId: "e-9" });
  const socket = sockets[0].open();
  const [one, two] = socket.sent;
  socket.say({ id: one.id, error: { code: "no-leader", retryable: true, retry_after_ms: 500 } });
  socket.say({ id: two.id, error: { code: "invalid-name", detail: "no", retryable: false } });
  await wrong;
  await clock.wait(749);
  assert.equal(socket.all("publish").length, 2);
  await clock.wait(1);
  assert.deepEqual(socket.all("publish")[2], one);
  socket.say({ id: one.id, ack: { seq: 1, duplicate: false } });
  assert.equal((await tried).seq, 1);
});

test("a refused publish is sent once on the next connection, not again when its rest is over", async (t) => {
  const { mesh, sockets, clock, next } = scene(t);
  mesh.publish("orders", 1).catch(() => {});
  const { id } = sockets[0].open().last("publish");
  sockets[0].say({ id, error: { code: "overloaded", retryable: true, retry_after_ms: 5000 } });
  sockets[0].die();
  const socket = (await next()).open();
  await clock.wait(10000);
  assert.equal(socket.all("publish").length, 1);
});

test("a publish that runs out of time says whether it may be stored", async (t) => {
  const { mesh, sockets, clock, next } = scene(t, { timeoutMs: 3000, connectMs: 60000 });
  const unsent = assert.rejects(mesh.publish("orders", 1), { code: "not-sent" });
  await clock.wait(4000);
  await unsent;

  const unknown = assert.rejects(mesh.publish("orders", 1, { id: "e-1" }), { code: "outcome-unknown", eventId: "e-1" });
  sockets[0].open().die();
  await next();
  await clock.wait(4000);
  await unknown;

  const refused = assert.rejects(mesh.publish("orders", 1), { code: "no-leader" });
  const socket = sockets.at(-1).open();
  const refuse = (code) => socket.say({ id: socket.last("publish").id, error: { code, retryable: true, retry_after_ms: 60000 } });
  refuse("no-leader");
  await clock.wait(4000);
  await refused;

  const doubtful = assert.rejects(mesh.publish("orders", 1), { code: "outcome-unknown" });
  refuse("outcome-unknown");
  await clock.wait(4000);
  await doubtful;
});

test("more publishes than the bound are rejected at once", async (t) => {
  const { mesh } = scene(t, { maxPending: 1 });
  const first = assert.rejects(mesh.publish("orders", 1), { code: "closed" });
  await assert.rejects(mesh.publish("orders", 2), { code: "too-many-pending" });
  mesh.close();
  await first;
});

test("what the node would close the connection for is not sent", async (t) => {
  const { mesh, sockets } = scene(t);
  sockets[0].open();
  await assert.rejects(mesh.publish("orders", "ä".repeat(1100000)), { code: "body-too-large" });
  mesh.publish("orders", "a".repeat(1100000)).catch(() => {});
  assert.equal(sockets[0].all("publish").length, 1);
});

test("states: connecting, open, resuming, closed", async (t) => {
  const { mesh, sockets, states, next } = scene(t, {}, ["http://a/", "ws://b"]);
  const told = [];
  const off = mesh.on("state", (change) => told.push(change));
  assert.deepEqual([mesh.state, mesh.node], ["connecting", "http://a"]);
  sockets[0].open().die(1001, "leaving");
  (await next()).open();
  off();
  mesh.close();
  assert.deepEqual(states, ["connecting http://a", "open http://a", "resuming http://a", "resuming http://b", "open http://b", "closed http://b"]);
  assert.deepEqual(told, [
    { state: "open", previous: "connecting", node: "http://a" },
    { state: "resuming", previous: "open", node: "http://a", code: 1001, reason: "leaving" },
    { state: "resuming", previous: "resuming", node: "http://b" },
    { state: "open", previous: "resuming", node: "http://b" },
  ]);
});

test("the next attempt comes after a random part of a time that doubles up to a cap", async (t) => {
  const it = scene(t, { backoffMs: 100, backoffMaxMs: 1000 });
  it.chance = 1;
  const waits = [];
  for (let i = 0; i < 6; i += 1) {
    const from = it.clock.now;
    it.sockets.at(-1).die();
    await it.next();
    waits.push(it.clock.now - from);
  }
  assert.deepEqual(waits, [100, 200, 400, 800, 1000, 1000]);
  it.chance = 0;
  it.sockets.at(-1).die();
  await it.clock.wait(0);
  assert.equal(it.sockets.length, 8, "full jitter begins at nothing");
});

test("the back-off begins anew only after a connection that held", async (t) => {
  const it = scene(t);
  it.chance = 1;
  const waitAfter = async (stood) => {
    it.sockets.at(-1).open();
    await it.clock.wait(stood);
    const from = it.clock.now;
    it.sockets.at(-1).die();
    await it.next();
    return it.clock.now - from;
  };
  assert.deepEqual([await waitAfter(10), await waitAfter(990), await waitAfter(1000)], [100, 200, 100]);
});

test("close codes: at once, soon, later, never", async (t) => {
  const later = { 4200: 0, 4299: 0, 1001: 100, 1006: 100, 1005: 100, 4300: 100, 1011: 800, 1013: 800, 4100: 800, 4199: 800 };
  for (const [code, ms] of Object.entries(later)) {
    await t.test(`${code} comes back within ${ms} ms`, async (t) => {
      const it = scene(t);
      it.chance = 1;
      it.sockets[0].open().die(Number(code));
      if (ms > 0) await it.clock.wait(ms - 1);
      assert.equal(it.sockets.length, 1);
      await it.clock.wait(1);
      assert.equal(it.sockets.length, 2);
    });
  }
  for (const code of [1000, 1008, 1009, 4000, 4099]) {
    await t.test(`${code} does not come back`, async (t) => {
      const { mesh, sockets, clock } = scene(t);
      const told = [];
      mesh.on("state", (change) => told.push(change));
      const outcome = assert.rejects(mesh.publish("orders", 1), { code: "refused" });
      const events = mesh.subscribe("orders");
      sockets[0].open().die(code, "why");
      await outcome;
      await assert.rejects(events.next(), { code: "refused", message: new RegExp(`${code} why`) });
      await assert.rejects(mesh.publish("orders", 1), { code: "refused" });
      assert.throws(() => mesh.subscribe("orders"), { code: "refused" });
      await clock.wait(60000);
      assert.deepEqual([sockets.length, clock.timers, mesh.state], [1, 0, "closed"]);
      assert.equal(told.at(-1).error.code, "refused");
    });
  }
});

test("a node that sends everybody away at once is not asked in a loop", async (t) => {
  const it = scene(t, {}, "http://a");
  it.chance = 1;
  for (let i = 0; i < 5; i += 1) {
    it.sockets.at(-1).open().die(4200);
    await it.next();
  }
  assert.ok(it.clock.now - Date.UTC(2026, 0, 1) > 2000);
});

test("every node is tried before one is tried again, those of the cluster before those given", async (t) => {
  const { mesh, sockets, clock, next } = scene(t, {}, ["http://seed", "http://spare"]);
  const learned = [];
  mesh.on("nodes", (nodes) => learned.push(nodes));
  sockets[0].open().say(NODES);
  assert.deepEqual(learned, [NODES.nodes]);
  await clock.wait(1000);
  sockets[0].die();
  for (let i = 0; i < 4; i += 1) (await next()).die();
  const urls = sockets.map(({ url }) => url.slice(5, -6));
  assert.deepEqual([urls[0], urls.slice(1, 4).sort(), urls[4]], ["seed", ["a", "c", "d"], "spare"]);
  await next();
  assert.notEqual(sockets[5].url, sockets[4].url);
});

test("who lost the same node spreads over the others", async (t) => {
  const chosen = new Set();
  for (const chance of [0, 0.5, 0.99]) {
    await t.test(`at ${chance}`, async (t) => {
      const it = scene(t, {}, "http://a");
      it.sockets[0].open().say(NODES);
      it.chance = chance;
      it.sockets[0].die();
      chosen.add((await it.next()).url);
    });
  }
  assert.deepEqual([...chosen].sort(), ["ws://c/v1/ws", "ws://d/v1/ws"]);
});

test("with `discover: false` only the given addresses are used", async (t) => {
  const { sockets, next } = scene(t, { discover: false }, "https://proxy/mesh/");
  sockets[0].open().say(NODES);
  sockets[0].die();
  assert.equal((await next()).url, "wss://proxy/mesh/v1/ws");
});

test("a goodbye moves the connection within its time, and keeps what is under way", async (t) => {
  const it = scene(t, {}, "http://a/");
  it.chance = 0.25;
  const outcome = it.mesh.publish("orders", 1);
  const [first] = it.sockets;
  first.open().say(NODES);
  first.say({ goaway: { reconnect_within_ms: 3000 } });
  first.say({ goaway: { reconnect_within_ms: 3000 } });
  await it.clock.wait(599);
  assert.equal(it.sockets.length, 1);
  await it.clock.wait(1);
  assert.equal(it.sockets.length, 2);
  assert.ok(first.closed);
  const second = it.sockets[1].open();
  second.say({ id: second.last("publish").id, ack: { seq: 1, duplicate: true } });
  assert.equal((await outcome).seq, 1);
});

test("alone, a node that says goodbye is used until it closes", async (t) => {
  const { sockets, clock } = scene(t, {}, "http://a");
  sockets[0].open().say({ nodes: [{ name: "n1", url: "http://a/" }] });
  sockets[0].say({ goaway: { reconnect_within_ms: 3000 } });
  await clock.wait(3000);
  assert.equal(sockets.length, 1);
});

test("a node that does not take the connection is left for the next", async (t) => {
  const { sockets, clock } = scene(t);
  await clock.wait(4999);
  assert.equal(sockets.length, 1);
  await clock.wait(100);
  assert.deepEqual(sockets.map(({ url, closed }) => [url, closed]), [["ws://a/v1/ws", true], ["ws://b/v1/ws", false]]);
});

test("an address that cannot be opened from here is left for the next", async (t) => {
  const { mesh, sockets, next } = scene(t);
  mesh.close();
  let tries = 0;
  class Blocked extends sockets[0].constructor {
    constructor(...args) {
      tries += 1;
      if (tries === 1) throw new Error("ws: is blocked on https: pages");
      super(...args);
    }
  }
  const other = connect({ nodes: ["http://a", "http://b"], WebSocket: Blocked });
  t.after(() => other.close());
  assert.equal((await next()).url, "ws://b/v1/ws");
});

test("a quiet node is asked, and left when it says nothing", async (t) => {
  const { sockets, clock } = scene(t);
  const socket = sockets[0].open();
  await clock.wait(14500);
  assert.equal(socket.all("ping").length, 0);
  await clock.wait(1000);
  assert.equal(socket.all("ping").length, 1);
  socket.say({ id: socket.last("ping").id, pong: { time: "now" } });
  await clock.wait(15500);
  assert.equal(socket.all("ping").length, 2);
  assert.equal(sockets.length, 1);
  await clock.wait(6000);
  assert.equal(sockets.length, 2);
  assert.ok(socket.closed);
});

test("with a publish under way a silent node is noticed sooner", async (t) => {
  const { mesh, sockets, clock } = scene(t);
  const socket = sockets[0].open();
  mesh.publish("orders", 1).catch(() => {});
  await clock.wait(3000);
  assert.equal(socket.all("ping").length, 1);
  await clock.wait(5500);
  assert.equal(sockets.length, 2);
});

test("a node that says what is not JSON is left", async (t) => {
  const { sockets, next } = scene(t);
  sockets[0].open().say("<html>");
  await next();
});

test("what an old connection still says is not heard", async (t) => {
  const { mesh, sockets, next } = scene(t);
  const outcome = mesh.publish("orders", 1);
  const { id } = sockets[0].open().last("publish");
  sockets[0].die();
  const second = (await next()).open();
  sockets[0].say({ id, ack: { seq: 99, duplicate: false } });
  sockets[0].die(4000);
  second.say({ id, ack: { seq: 1, duplicate: false } });
  assert.equal((await outcome).seq, 1);
});

test("closing here leaves nothing behind", async (t) => {
  const { mesh, sockets, clock } = scene(t);
  const outcome = assert.rejects(mesh.publish("orders", 1), { code: "closed" });
  sockets[0].open();
  mesh.close();
  mesh.close();
  await outcome;
  assert.deepEqual([sockets[0].closed, clock.timers, mesh.state], [true, 0, "closed"]);
});

test("a listener that closes everything is obeyed, one that throws disturbs nobody", async (t) => {
  const { mesh, sockets, clock } = scene(t);
  const thrown = [];
  t.mock.method(globalThis, "queueMicrotask", (act) => thrown.push(act));
  mesh.on("state", () => {
    throw new Error("a listener's own fault");
  });
  mesh.on("state", ({ state, node }) => state === "resuming" && node === "http://b" && mesh.close());
  sockets[0].open().die();
  await clock.wait(60000);
  assert.deepEqual([sockets.length, clock.timers], [1, 0]);
  assert.throws(thrown[0], /own fault/);
});

test("what connect cannot use, it says at once", async (t) => {
  for (const nodes of [undefined, [], "", "nonsense", "ftp://a", ["http://a", "b"]]) {
    assert.throws(() => connect(nodes, { WebSocket: class {} }), TypeError, String(nodes));
  }
  const before = globalThis.WebSocket;
  t.after(() => (globalThis.WebSocket = before));
  globalThis.WebSocket = undefined;
  assert.throws(() => connect("http://a"), /--experimental-websocket/);
});

test("connect takes an address, several with options, or everything in one", async (t) => {
  const urls = [];
  class Socket {
    constructor(url) {
      urls.push(url);
    }
    close() {}
  }
  globalThis.WebSocket = Socket;
  t.after(() => delete globalThis.WebSocket);
  for (const mesh of [connect("http://a/"), connect(new URL("http://b")), connect(["https://c"], { WebSocket: Socket }), connect({ nodes: ["http://d"] })]) {
    mesh.close();
  }
  assert.deepEqual(urls, ["ws://a/v1/ws", "ws://b/v1/ws", "wss://c/v1/ws", "ws://d/v1/ws"]);
  await settled();
});
