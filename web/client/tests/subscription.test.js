// Subscriptions: every event once and in order, gaps in their place, and never more than the credit.

import assert from "node:assert/strict";
import test from "node:test";
import { scene, settled } from "./scene.js";

/** A subscription that is taken, with what its handler and its gaps said, in order. */
function followed(t, options, { from = 1, handler } = {}) {
  const it = scene(t);
  it.said = [];
  const subscription = it.mesh.subscribe("orders", { from, ...options }, handler ?? ((event) => void it.said.push(event.seq)));
  subscription.on("gap", ({ from, to, announced }) => it.said.push(`${announced ? "gap" : "hole"} ${from}-${to}`));
  it.sockets[0].open().takeSubscription(1, from);
  return Object.assign(it, { subscription });
}

test("a subscription goes on after its last event on another node, each event once", async (t) => {
  const { mesh, sockets, next } = scene(t);
  const events = mesh.subscribe("orders", { from: "earliest" });
  const first = sockets[0].open();
  assert.deepEqual(first.last("subscribe").subscribe, { stream: "orders", from: "earliest", credit: 1000 });
  first.takeSubscription(1, 1);
  first.deliver(1, 1, 2);
  assert.equal((await events.next()).value.seq, 1);
  first.die();
  const second = (await next()).open();
  assert.deepEqual(second.last("subscribe").subscribe, { stream: "orders", from: 3, credit: 999 });
  second.takeSubscription(4, 3);
  first.deliver(1, 3);
  second.deliver(4, 2, 3);
  assert.equal((await events.next()).value.seq, 2);
  assert.equal(events.lastSeq, 2);
  assert.equal((await events.next()).value.seq, 3);
  mesh.close();
  assert.equal((await events.next()).done, true);
});

test("a stream that was deleted and made anew meanwhile ends the subscription", async (t) => {
  const { mesh, sockets, next } = scene(t);
  const events = mesh.subscribe("orders", { from: 1 });
  sockets[0].open().takeSubscription(1, 1, "2026-11-22T09:00:00Z");
  sockets[0].die();
  const same = (await next()).open();
  same.takeSubscription(2, 1, "2026-11-22T09:00:00Z");
  same.deliver(2, 1);
  assert.equal((await events.next()).value.seq, 1);
  same.die();
  const another = (await next()).open();
  another.takeSubscription(3, 2, "2026-11-22T10:00:00Z");
  await assert.rejects(events.next(), { code: "stream-replaced" });
  assert.deepEqual(another.last("unsubscribe").unsubscribe, { sub: 3 });
  assert.equal(events.lastSeq, 1);
});

test("`new` that saw nothing yet goes on where it began", async (t) => {
  const { mesh, sockets, next } = scene(t);
  const told = [];
  mesh.subscribe("orders").on("subscribed", (detail) => told.push(detail));
  sockets[0].open().takeSubscription(1, 43);
  sockets[0].die();
  const second = (await next()).open();
  assert.equal(second.last("subscribe").subscribe.from, 43);
  second.takeSubscription(1, 43);
  assert.deepEqual(told, [
    { from: 43, node: "http://a", resumed: false },
    { from: 43, node: "http://b", resumed: true },
  ]);
});

test("where to begin: a seq, a word, a time, a date; and the filter", async (t) => {
  const { mesh, sockets } = scene(t);
  const at = new Date(Date.UTC(2026, 10, 22, 9));
  for (const from of [7, 0, "latest", "2026-11-22T09:00:00Z", at, undefined]) mesh.subscribe("orders", { from, subject: "a.>", credit: undefined });
  const asked = sockets[0].open().all("subscribe").map(({ subscribe }) => subscribe);
  assert.deepEqual(asked.map(({ from }) => from), [7, 1, "latest", "2026-11-22T09:00:00Z", "2026-11-22T09:00:00.000Z", "new"]);
  assert.ok(asked.every(({ subject, credit }) => subject === "a.>" && credit === 1000));
  assert.throws(() => mesh.subscribe("orders", { credit: 0 }), RangeError);
});

test("an async handler gets one event after the other, and holds back the node", async (t) => {
  const running = [];
  const handler = (event) => new Promise((done) => running.push({ seq: event.seq, done }));
  const { sockets, subscription } = followed(t, { credit: 4 }, { handler });
  const [socket] = sockets;
  socket.deliver(1, 1, 2, 3, 4);
  for (let seq = 1; seq <= 4; seq += 1) {
    await settled();
    assert.deepEqual(running.map((call) => call.seq), [seq], "one at a time");
    assert.equal(subscription.held, 4 - seq);
    const given = socket.all("credit").reduce((sum, { credit }) => sum + credit.add, 0);
    assert.ok(given <= seq, "credit is given back only for what was taken");
    running.pop().done();
  }
  assert.deepEqual(socket.all("credit").map(({ credit }) => credit), [{ sub: 1, add: 2 }, { sub: 1, add: 2 }]);
});

test("credit for what was taken while a new subscription was on its way is not lost", async (t) => {
  const { mesh, sockets, next } = scene(t);
  const events = mesh.subscribe("orders", { from: 1, credit: 4 });
  sockets[0].open().takeSubscription(1, 1);
  sockets[0].deliver(1, 1, 2, 3, 4);
  sockets[0].die();
  const second = (await next()).open();
  assert.equal(second.last("subscribe").subscribe.credit, 0);
  for (let i = 0; i < 4; i += 1) await events.next();
  assert.equal(second.last("credit"), undefined);
  second.takeSubscription(7, 5);
  assert.deepEqual(second.last("credit").credit, { sub: 7, add: 4 });
});

test("at every moment the node may send at most what there is room for", async (t) => {
  // Random courses of one seed: deliveries, takes, losses. The books of both ends must agree.
  let state = 42;
  const chance = (n) => {
    state = (state * 1103515245 + 12345) % 2 ** 31;
    return Math.floor((state / 2 ** 31) * n);
  };
  const it = scene(t);
  const credit = 10;
  const events = it.mesh.subscribe("orders", { from: 1, credit });
  let socket = it.sockets[0].open();
  let [seq, allowed, seen, taken, sub] = [1, 0, 0, 0, null];
  const account = () => {
    for (const { credit } of socket.all("credit").slice(seen)) {
      assert.equal(credit.sub, sub);
      allowed += credit.add;
      seen += 1;
    }
    assert.ok(allowed + events.held <= credit, `${allowed} allowed, ${events.held} held`);
  };
  for (let step = 0; step < 2000; step += 1) {
    const what = chance(12);
    if (what === 0) {
      socket.die();
      socket = (await it.next(60000)).open();
      [sub, allowed, seen] = [null, 0, 0];
    } else if (sub === null && what < 4) {
      sub = 100 + step;
      const { subscribe } = socket.last("subscribe");
      [seq, allowed] = [subscribe.from, subscribe.credit];
      socket.takeSubscription(sub, seq);
    } else if (sub !== null && what < 8 && allowed > 0) {
      const seqs = Array.from({ length: 1 + chance(allowed) }, () => seq++);
      allowed -= seqs.length;
      socket.deliver(sub, ...seqs);
    } else if (events.held > 0) {
      assert.equal((await events.next()).value.seq, (taken += 1));
    }
    account();
  }
  assert.ok(taken > 500, `${taken} events went through`);
});

test("a gap is told in its place, on every way", async (t) => {
  const it = followed(t, {});
  const [socket] = it.sockets;
  socket.deliver(1, 1);
  socket.say({ sub: 1, gap: { from: 2, to: 9 } });
  socket.deliver(1, 10);
  socket.say({ sub: 1, gap: { from: 11, to: 11 } });
  socket.say({ sub: 1, gap: { from: 12, to: 14 } });
  socket.deliver(1, 15);
  await settled();
  assert.deepEqual(it.said, [1, "gap 2-9", 10, "gap 11-14", 15]);
  it.sockets[0].die();
  const second = (await it.next()).open();
  assert.equal(second.last("subscribe").subscribe.from, 16);
  second.takeSubscription(2, 16);
  second.say({ sub: 2, gap: { from: 3, to: 15 } });
  second.say({ sub: 2, gap: { from: 14, to: 20 } });
  second.deliver(2, 21);
  await settled();
  assert.deepEqual(it.said.slice(5), ["gap 16-20", 21]);
});

test("a hole that the node did not tell of is told here; one that a filter makes is none", async (t) => {
  await t.test("without a filter", async (t) => {
    const it = followed(t, {});
    it.sockets[0].deliver(1, 1, 4);
    await settled();
    assert.deepEqual(it.said, [1, "hole 2-3", 4]);
  });
  await t.test("with a filter", async (t) => {
    const it = followed(t, { subject: "a" });
    it.sockets[0].deliver(1, 1, 4);
    await settled();
    assert.deepEqual(it.said, [1, 4]);
  });
});

test("`onGap` and an iterator that waits are told at once", async (t) => {
  const { mesh, sockets } = scene(t);
  const gaps = [];
  const events = mesh.subscribe("orders", { from: 1, onGap: (gap) => gaps.push(gap) });
  sockets[0].open().takeSubscription(1, 1);
  const waiting = events.next();
  sockets[0].say({ sub: 1, gap: { from: 1, to: 9 } });
  assert.deepEqual(gaps, [{ from: 1, to: 9, announced: true }]);
  sockets[0].deliver(1, 10);
  assert.equal((await waiting).value.seq, 10);
});

test("leaving a loop ends the subscription at the node", async (t) => {
  const { mesh, sockets } = scene(t);
  const events = mesh.subscribe("orders", { from: 1 });
  sockets[0].open().takeSubscription(3, 1);
  sockets[0].deliver(3, 1, 2);
  for await (const event of events) if (event.seq === 1) break;
  assert.deepEqual(sockets[0].last("unsubscribe").unsubscribe, { sub: 3 });
  assert.equal((await events.next()).done, true);
  await events.ended;
});

test("after close no handler is called any more", async (t) => {
  const it = followed(t, {}, { handler: (event) => (it.said.push(event.seq), event.seq === 2 && it.subscription.close()) });
  it.sockets[0].deliver(1, 1, 2, 3);
  await it.subscription.ended;
  it.sockets[0].deliver(1, 4);
  await settled();
  assert.deepEqual(it.said, [1, 2]);
});

test("a subscription that was closed before it began is ended when it begins", async (t) => {
  const { mesh, sockets } = scene(t);
  const events = mesh.subscribe("orders");
  const socket = sockets[0].open();
  events.close();
  socket.takeSubscription(5, 1);
  assert.deepEqual(socket.last("unsubscribe").unsubscribe, { sub: 5 });
});

test("a handler that fails ends the subscription with its error", async (t) => {
  const it = followed(t, {}, { handler: async (event) => assert.notEqual(event.seq, 2, "the second is too much") });
  it.sockets[0].deliver(1, 1, 2, 3);
  await assert.rejects(it.subscription.ended, /too much/);
  assert.deepEqual(it.sockets[0].last("unsubscribe").unsubscribe, { sub: 1 });
});

test("what the node refuses for now is asked again, for good is an error after the events that came", async (t) => {
  const { mesh, sockets, clock } = scene(t);
  const events = mesh.subscribe("orders", { from: 1 });
  const socket = sockets[0].open();
  socket.say({ id: socket.last("subscribe").id, error: { code: "no-leader", retryable: true, retry_after_ms: 500 } });
  await clock.wait(749);
  assert.equal(socket.all("subscribe").length, 1);
  await clock.wait(1);
  assert.equal(socket.all("subscribe").length, 2);
  socket.takeSubscription(2, 1);
  socket.deliver(2, 1, 2);
  socket.say({ sub: 2, error: { code: "rebuilding", retryable: true, retry_after_ms: 100 } });
  await clock.wait(150);
  assert.equal(socket.last("subscribe").subscribe.from, 3);
  socket.takeSubscription(3, 3);
  socket.say({ sub: 3, error: { code: "stream-not-found", detail: "it was deleted", retryable: false } });
  assert.equal((await events.next()).value.seq, 1);
  assert.equal((await events.next()).value.seq, 2);
  await assert.rejects(events.next(), { name: "EvermeshError", code: "stream-not-found", message: "it was deleted" });
  await assert.rejects(events.ended, { code: "stream-not-found" });
});

test("a refused subscription is asked for once on the next connection", async (t) => {
  const { mesh, sockets, clock, next } = scene(t);
  mesh.subscribe("orders");
  const socket = sockets[0].open();
  socket.say({ id: socket.last("subscribe").id, error: { code: "no-leader", retryable: true, retry_after_ms: 1000 } });
  socket.die();
  const second = (await next()).open();
  await clock.wait(5000);
  assert.equal(second.all("subscribe").length, 1);
});

test("many subscriptions share the connection and all go on", async (t) => {
  const { mesh, sockets, next } = scene(t);
  const said = [];
  for (const stream of ["a", "b", "c"]) mesh.subscribe(stream, { from: 1 }, ({ seq }) => void said.push(`${stream}${seq}`));
  const take = (socket) => socket.all("subscribe").forEach(({ id, subscribe }, i) => socket.say({ id, subscribed: { sub: i + 1, from: subscribe.from } }));
  take(sockets[0].open());
  for (const sub of [1, 2, 3]) sockets[0].deliver(sub, 1);
  sockets[0].die();
  const second = (await next()).open();
  assert.deepEqual(second.all("subscribe").map(({ subscribe }) => subscribe.from), [2, 2, 2]);
  take(second);
  for (const sub of [3, 2, 1]) second.deliver(sub, 1, 2);
  await settled();
  assert.deepEqual(said.sort(), ["a1", "a2", "b1", "b2", "c1", "c2"]);
});
