// What pages and laptops do: put aside, brought back, asleep, on another network.

import assert from "node:assert/strict";
import test from "node:test";
import { scene, settled } from "./scene.js";

/** A window and a document that only know their events. */
function inPage(t, options) {
  const page = { window: new EventTarget(), document: Object.assign(new EventTarget(), { visibilityState: "visible" }) };
  const { addEventListener } = globalThis;
  globalThis.addEventListener = page.window.addEventListener.bind(page.window);
  globalThis.document = page.document;
  t.after(() => {
    globalThis.addEventListener = addEventListener;
    delete globalThis.document;
  });
  const it = scene(t, options);
  it.fire = (type) => {
    const target = ["freeze", "resume", "visibilitychange"].includes(type) ? page.document : page.window;
    target.dispatchEvent(new Event(type));
  };
  it.see = (visibilityState) => {
    page.document.visibilityState = visibilityState;
    it.fire("visibilitychange");
  };
  return it;
}

for (const [aside, back] of [["pagehide", "pageshow"], ["freeze", "resume"]]) {
  test(`${aside} closes the connection, ${back} brings it back with everything`, async (t) => {
    const { mesh, sockets, clock, fire } = inPage(t);
    const said = [];
    mesh.subscribe("orders", { from: 1 }, ({ seq }) => void said.push(seq));
    const outcome = mesh.publish("orders", 1);
    const first = sockets[0].open();
    first.takeSubscription(1, 1);
    first.deliver(1, 1, 2);
    fire(aside);
    fire(aside);
    assert.deepEqual([first.closed, mesh.state], [true, "resuming"]);
    await clock.wait(20000);
    assert.equal(sockets.length, 1, "no attempt while it is aside");
    fire(back);
    fire(back);
    assert.equal(sockets.length, 2, "at once when it is back");
    const second = sockets[1].open();
    assert.equal(second.last("subscribe").subscribe.from, 3);
    second.takeSubscription(1, 3);
    second.deliver(1, 3);
    second.say({ id: second.last("publish").id, ack: { seq: 3, duplicate: true } });
    assert.equal((await outcome).seq, 3);
    await settled();
    assert.deepEqual(said, [1, 2, 3]);
  });
}

test("a page that is shown for the first time has nothing to bring back", async (t) => {
  const { sockets, fire } = inPage(t);
  fire("pageshow");
  assert.equal(sockets.length, 1);
});

test("back on a network, or seen again, it does not wait for its back-off", async (t) => {
  const { sockets, fire, see, chance, clock } = inPage(t, { backoffMs: 60000, backoffMaxMs: 60000 });
  assert.equal(chance, 0.5);
  sockets[0].die();
  await clock.wait(1000);
  fire("online");
  assert.equal(sockets.length, 2);
  sockets[1].die();
  see("hidden");
  assert.equal(sockets.length, 2);
  see("visible");
  assert.equal(sockets.length, 3);
  await clock.wait(4000);
  assert.equal(sockets.length, 3, "the attempt that was set before is not made as well");
});

test("an open connection is asked at once, and left when it says nothing", async (t) => {
  const { sockets, fire, clock } = inPage(t);
  const socket = sockets[0].open();
  fire("online");
  assert.equal(socket.all("ping").length, 1);
  socket.say({ id: socket.last("ping").id, pong: { time: "now" } });
  await clock.wait(3000);
  assert.equal(sockets.length, 1);
  fire("online");
  await clock.wait(3500);
  assert.equal(sockets.length, 2);
  assert.ok(socket.closed);
});

test("after a nap the connection is asked, after a night it is made anew", async (t) => {
  const { sockets, clock } = inPage(t);
  const socket = sockets[0].open();
  await clock.wait(1000);
  await clock.sleep(20000);
  assert.equal(socket.all("ping").length, 1);
  socket.say({ id: socket.last("ping").id, pong: { time: "now" } });
  await clock.wait(5000);
  assert.equal(sockets.length, 1);
  await clock.sleep(8 * 3600 * 1000);
  await clock.wait(0);
  assert.equal(sockets.length, 2);
});

test("a hidden page whose timers are held back keeps its connection", async (t) => {
  const { sockets, clock, see } = inPage(t);
  const socket = sockets[0].open();
  see("hidden");
  for (let minute = 0; minute < 10; minute += 1) {
    await clock.sleep(62000);
    const ping = socket.last("ping");
    socket.say({ id: ping.id, pong: { time: "now" } });
  }
  assert.equal(sockets.length, 1);
  assert.ok(!socket.closed);
});

test("a publish that slept too long is told so, as the node may have forgotten its id", async (t) => {
  const { mesh, sockets, clock } = inPage(t);
  const outcome = assert.rejects(mesh.publish("orders", 1), { code: "outcome-unknown" });
  sockets[0].open();
  await clock.sleep(3600 * 1000);
  await outcome;
});

test("after close nothing listens any more", async (t) => {
  const { mesh, sockets, fire, see, clock } = inPage(t);
  mesh.close();
  for (const type of ["pagehide", "pageshow", "freeze", "resume", "online"]) fire(type);
  see("visible");
  await clock.wait(60000);
  assert.deepEqual([sockets.length, clock.timers], [1, 0]);
});
