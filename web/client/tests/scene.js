// What the tests of the client share: sockets that the test holds in its hands, and a clock that stands still until it is told to
// go on. No network, no service, no chance, so each test has one course.

import assert from "node:assert/strict";
import { connect } from "../evermesh.js";

/** A WebSocket whose other end is the test. */
class Socket {
  readyState = 0;
  sent = [];
  closed = false;

  constructor(url, protocol) {
    Object.assign(this, { url, protocol });
  }

  send(text) {
    assert.equal(this.readyState, 1, "sent on a socket that is not open");
    this.sent.push(JSON.parse(text));
  }

  close() {
    this.closed = true;
    this.readyState = 3;
  }

  // From here on: what the node does.

  open() {
    this.readyState = 1;
    this.onopen();
    return this;
  }

  say(frame) {
    this.onmessage({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }

  die(code = 1006, reason = "") {
    this.readyState = 3;
    this.onclose({ code, reason });
  }

  all(verb) {
    return this.sent.filter((command) => verb in command);
  }

  last(verb) {
    return this.all(verb).at(-1);
  }

  /** Takes the newest subscription that was asked for. */
  takeSubscription(sub, from, created) {
    this.say({ id: this.last("subscribe").id, subscribed: { sub, from, created } });
  }

  deliver(sub, ...seqs) {
    this.say({ sub, events: seqs.map((seq) => ({ seq, data: { n: seq } })) });
  }
}

/** A clock that stands still. Timers run in the order of their times, and see the time for which they were set. */
class Clock {
  now = Date.UTC(2026, 0, 1);
  #timers = new Map();
  #ids = 0;

  constructor(t) {
    t.mock.method(Date, "now", () => this.now);
    t.mock.method(globalThis, "setTimeout", (act, ms) => {
      this.#timers.set(++this.#ids, { act, at: this.now + ms });
      return this.#ids;
    });
    t.mock.method(globalThis, "clearTimeout", (id) => void this.#timers.delete(id));
  }

  get timers() {
    return this.#timers.size;
  }

  async wait(ms) {
    const end = this.now + ms;
    for (let next; (next = this.#next(end)); await settled()) {
      this.now = Math.max(this.now, next.at);
      this.#timers.delete(next.id);
      next.act();
    }
    this.now = end;
  }

  /** Time passes and no timer comes, as on a machine that sleeps; whatever is due then comes late. */
  async sleep(ms) {
    this.now += ms;
    await this.wait(0);
  }

  #next(end) {
    const due = [...this.#timers].map(([id, timer]) => ({ id, ...timer })).filter(({ at }) => at <= end);
    return due.sort((a, b) => a.at - b.at || a.id - b.id)[0];
  }
}

/**
 * A connection in the test's hands: `sockets` in the order the client opened them, `states` as they were told. `chance` is what
 * Math.random says.
 */
export function scene(t, options = {}, nodes = ["http://a", "http://b"]) {
  const clock = new Clock(t);
  const it = { clock, sockets: [], states: [], chance: 0.5 };
  t.mock.method(Math, "random", () => it.chance);
  class Opened extends Socket {
    constructor(...args) {
      super(...args);
      it.sockets.push(this);
    }
  }
  it.mesh = connect({ nodes, WebSocket: Opened, onState: (state, node) => it.states.push(`${state} ${node}`), ...options });
  /** Waits for the next attempt and gives its socket. */
  it.next = async (ms = 5000) => {
    const had = it.sockets.length;
    for (let waited = 0; it.sockets.length === had && waited < ms; waited += 10) await clock.wait(10);
    assert.equal(it.sockets.length, had + 1, "no other connection was tried");
    return it.sockets.at(-1);
  };
  t.after(() => it.mesh.close());
  return it;
}

/** Lets every promise that can go on do so. */
export function settled() {
  return new Promise((done) => setImmediate(done));
}
