// The browser client of Evermesh: one connection to whichever node answers, many streams, both directions.
// An ES module without dependencies, for browsers and for Node 22 or newer (older ones: give `WebSocket` in the options).
//
//   import { connect } from "/evermesh.js";
//   const mesh = connect(location.origin);
//   await mesh.publish("orders", { order: 1001 }, { subject: "orders.eu.created" });
//   for await (const event of mesh.subscribe("orders", { from: "earliest" })) console.log(event.seq, event.data);
//
// What is always true:
// - When a node goes away, the connection moves to another; subscriptions go on after the last event taken, and publishes without
//   an answer are sent again under the same event id, so that each is stored once.
// - A subscription gives every event once, in order of seq. What retention removed is told through `onGap`, never left out silently.
// - Nothing here grows without bound: a subscription holds at most `credit` events that were not taken yet, and a connection at
//   most `maxPending` commands without an answer.

const PROTOCOL = "evermesh.v1.json";
const DEFAULTS = { credit: 1000, maxPending: 1000, timeoutMs: 30000, backoffMs: 100, backoffMaxMs: 5000, pingMs: 15000, silenceMs: 40000, connectMs: 5000 };

/**
 * @typedef {object} Event
 * @property {number} seq
 * @property {string} time RFC 3339
 * @property {string} [subject]
 * @property {string} [id] the publisher's
 * @property {string} [content_type]
 * @property {Record<string, string>} [headers]
 * @property {unknown} [data] JSON, or a string where the event is text
 * @property {string} [data_base64] instead of `data`, where the event is neither
 *
 * @typedef {object} Options
 * @property {typeof globalThis.WebSocket} [WebSocket] default: the global one
 * @property {(state: "connecting" | "open" | "closed", node: string) => void} [onState]
 * @property {number} [maxPending] commands without an answer; beyond it a publish is rejected at once
 * @property {number} [timeoutMs] how long a publish is tried
 *
 * @typedef {object} PublishOptions
 * @property {string} [subject]
 * @property {string} [id] default: a random one, so that sending again is safe
 * @property {string} [contentType] default: application/json
 * @property {Record<string, string>} [headers]
 * @property {number} [expectedLastSeq]
 *
 * @typedef {object} SubscribeOptions
 * @property {number | "earliest" | "latest" | "new" | string} [from] a seq, a word or an RFC 3339 time; default "new"
 * @property {string} [subject] a filter, with * for one token and > for the rest
 * @property {number} [credit] most events held here that were not taken yet
 * @property {(gap: {from: number, to: number}) => void} [onGap]
 */

/** An answer of the service that says no, or a connection that is over. `problem` is the service's own. */
export class EvermeshError extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || problem.code);
    this.name = "EvermeshError";
    this.code = problem.code;
    this.problem = problem;
  }
}

/**
 * Opens a connection; it connects by itself, and again whenever it has to.
 * @param {string | string[]} nodes API addresses, `http://…`; one is enough, the others are learnt from it
 * @param {Options} [options]
 */
export function connect(nodes, options) {
  return new Connection([nodes].flat(), { ...DEFAULTS, ...options });
}

class Connection {
  #nodes;
  #options;
  #socket = null;
  #node = 0;
  #failures = 0;
  #commandId = 0;
  #closed = null; // the error that ended the connection for good
  #pending = new Map(); // command id -> { command, answer, fail, deadline, again }
  #subscriptions = new Set();
  #bySub = new Map(); // the server's number -> Subscription, of this socket only
  #heard = 0;
  #timers = new Set();

  constructor(nodes, options) {
    if (nodes.length === 0) throw new TypeError("give at least one node");
    this.#nodes = nodes.map((url) => url.replace(/\/+$/, ""));
    this.#options = options;
    this.#open();
    this.#every(options.pingMs, () => this.#checkHeartbeat());
    this.#every(1000, () => this.#expire());
  }

  /**
   * Publishes one event; resolves when it is durable on a majority of the stream's replicas.
   * Events of one connection to one stream are stored in the order of the calls, except after a refusal that is tried again.
   * @param {string} stream
   * @param {unknown} data any JSON value
   * @param {PublishOptions} [options]
   * @returns {Promise<{seq: number, duplicate: boolean}>}
   */
  publish(stream, data, options = {}) {
    const publish = { stream, event_id: options.id ?? randomId(), data };
    if (options.subject !== undefined) publish.subject = options.subject;
    if (options.contentType !== undefined) publish.content_type = options.contentType;
    if (options.headers !== undefined) publish.headers = options.headers;
    if (options.expectedLastSeq !== undefined) publish.expected_last_seq = options.expectedLastSeq;
    return this.#ask({ publish }).then((frame) => frame.ack);
  }

  /**
   * Publishes up to 1,000 events, all or none.
   * @param {string} stream
   * @param {{subject?: string, id?: string, content_type?: string, headers?: Record<string, string>, data?: unknown, data_base64?: string}[]} events
   * @returns {Promise<{first_seq: number, last_seq: number}>}
   */
  publishBatch(stream, events) {
    const identified = events.map((event) => ({ ...event, id: event.id ?? randomId() }));
    return this.#ask({ publish_batch: { stream, events: identified } }).then((frame) => frame.ack);
  }

  /**
   * Follows a stream: an async iterable of events that ends with `close()`.
   * @param {string} stream
   * @param {SubscribeOptions} [options]
   */
  subscribe(stream, options = {}) {
    if (this.#closed) throw this.#closed;
    const subscription = new Subscription(stream, { ...this.#options, ...options }, {
      credit: (add) => this.#tell({ credit: { sub: subscription.sub, add } }),
      close: () => this.#unsubscribe(subscription),
    });
    this.#subscriptions.add(subscription);
    if (this.#isOpen()) this.#start(subscription);
    return subscription;
  }

  /** The node in use, or the one that is tried. */
  get node() {
    return this.#nodes[this.#node % this.#nodes.length];
  }

  /** Ends the connection, its subscriptions, and the publishes that have no answer yet. */
  close() {
    this.#end(new EvermeshError({ code: "closed", title: "the connection was closed here" }), false);
  }

  // The socket.

  #open() {
    const { WebSocket = globalThis.WebSocket, connectMs } = this.#options;
    if (!WebSocket) throw new TypeError("there is no WebSocket here: give one in the options");
    this.#say("connecting");
    const socket = new WebSocket(this.node.replace(/^http/, "ws") + "/v1/ws", PROTOCOL);
    this.#socket = socket;
    const tooLong = this.#after(connectMs, () => socket === this.#socket && !this.#isOpen() && this.#moved({ code: 0 }));
    socket.onopen = () => {
      this.#cancel(tooLong);
      if (socket === this.#socket) this.#opened();
    };
    socket.onmessage = (message) => socket === this.#socket && this.#take(JSON.parse(message.data));
    socket.onclose = (event) => socket === this.#socket && this.#moved(event);
    socket.onerror = () => {}; // a close always follows
  }

  #opened() {
    this.#failures = 0;
    this.#heard = Date.now();
    this.#say("open");
    for (const subscription of this.#subscriptions) this.#start(subscription);
    for (const [id, entry] of this.#pending) {
      if (!entry.command.ping) this.#send(id, entry.command);
    }
  }

  // The socket ended: the close code says whether to come back, and when.
  #moved({ code, reason }) {
    this.#drop();
    if (code === 1008 || code === 1009 || (code >= 4000 && code <= 4099)) {
      this.#end(new EvermeshError({ code: "refused", title: `the node closed the connection for good: ${code} ${reason ?? ""}` }), true);
      return;
    }
    this.#node += 1;
    this.#failures += 1;
    const { backoffMs, backoffMaxMs } = this.#options;
    const atOnce = this.#failures === 1 && !(code >= 4100 && code <= 4199) && code !== 1013;
    const most = Math.min(backoffMaxMs, backoffMs * 2 ** Math.min(this.#failures, 16));
    this.#say("connecting");
    this.#after(atOnce ? 0 : most * (0.5 + Math.random() / 2), () => this.#closed || this.#open());
  }

  // Lets go of the socket without touching what was asked for.
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#bySub.clear();
    for (const subscription of this.#subscriptions) subscription.sub = null;
    for (const [id, entry] of this.#pending) {
      if (entry.ofSocket) this.#pending.delete(id);
    }
    try {
      socket?.close(1000);
    } catch {
      // It was not open any more.
    }
  }

  #isOpen() {
    return this.#socket !== null && this.#socket.readyState === 1;
  }

  #checkHeartbeat() {
    if (!this.#isOpen()) return;
    if (Date.now() - this.#heard > this.#options.silenceMs) this.#moved({ code: 0 });
    else this.#tell({ ping: {} });
  }

  // Commands and answers.

  // A command that is sent again, on the next socket too, until it has an answer or its time is over.
  #ask(command) {
    return new Promise((answer, fail) => {
      if (this.#closed) return fail(this.#closed);
      if (this.#pending.size >= this.#options.maxPending) {
        return fail(new EvermeshError({ code: "too-many-pending", title: `${this.#pending.size} commands wait for an answer already` }));
      }
      const id = ++this.#commandId;
      this.#pending.set(id, { command, answer, fail, deadline: Date.now() + this.#options.timeoutMs });
      if (this.#isOpen()) this.#send(id, command);
    });
  }

  // A command that means something on this socket only.
  #tell(command, answer = () => {}, fail = () => {}) {
    if (!this.#isOpen()) return;
    const id = ++this.#commandId;
    this.#pending.set(id, { command, answer, fail, deadline: Infinity, ofSocket: true });
    this.#send(id, command);
  }

  #send(id, command) {
    this.#socket.send(JSON.stringify({ id, ...command }));
  }

  #take(frame) {
    this.#heard = Date.now();
    if (frame.id !== undefined) this.#answered(frame);
    else if (frame.events) this.#bySub.get(frame.sub)?.push(frame.events);
    else if (frame.gap) this.#bySub.get(frame.sub)?.gap(frame.gap);
    else if (frame.nodes) this.#learn(frame.nodes);
    else if (frame.goaway) this.#after(Math.random() * frame.goaway.reconnect_within_ms * 0.8, () => this.#isOpen() && this.#moved({ code: 4200 }));
    else if (frame.sub !== undefined && frame.error) this.#failSubscription(this.#bySub.get(frame.sub), frame.error);
  }

  #answered(frame) {
    const entry = this.#pending.get(frame.id);
    if (!entry) return;
    if (frame.error?.retryable && Date.now() < entry.deadline) {
      this.#after(frame.error.retry_after_ms ?? 200, () => {
        if (this.#pending.has(frame.id) && this.#isOpen()) this.#send(frame.id, entry.command);
      });
      return;
    }
    this.#pending.delete(frame.id);
    if (frame.error) entry.fail(new EvermeshError(frame.error));
    else entry.answer(frame);
  }

  #expire() {
    const now = Date.now();
    for (const [id, entry] of this.#pending) {
      if (entry.deadline > now) continue;
      this.#pending.delete(id);
      entry.fail(new EvermeshError({ code: "outcome-unknown", title: "no answer in time: publish again under the same id to be sure" }));
    }
  }

  // The nodes of the cluster, the one in use first, so that the next is another.
  #learn(nodes) {
    const current = this.node;
    const urls = nodes.map((node) => node.url.replace(/\/+$/, ""));
    this.#nodes = [...new Set([current, ...urls, ...this.#nodes])].slice(0, 64);
    this.#node = 0;
  }

  // Subscriptions.

  #start(subscription) {
    const { stream, cursor, options } = subscription;
    const subscribe = { stream, from: cursor, credit: options.credit - subscription.held };
    if (options.subject !== undefined) subscribe.subject = options.subject;
    this.#tell({ subscribe }, ({ subscribed }) => {
      if (!this.#subscriptions.has(subscription)) return this.#tell({ unsubscribe: { sub: subscribed.sub } });
      this.#bySub.set(subscribed.sub, subscription);
      subscription.started(subscribed);
    }, (error) => this.#failSubscription(subscription, error.problem));
  }

  #unsubscribe(subscription) {
    this.#subscriptions.delete(subscription);
    if (subscription.sub === null) return;
    this.#bySub.delete(subscription.sub);
    this.#tell({ unsubscribe: { sub: subscription.sub } });
  }

  #failSubscription(subscription, problem) {
    if (!subscription || !this.#subscriptions.has(subscription)) return;
    this.#subscriptions.delete(subscription);
    this.#bySub.delete(subscription.sub);
    subscription.fail(new EvermeshError(problem));
  }

  #end(error, failed) {
    if (this.#closed) return;
    this.#closed = error;
    for (const timer of this.#timers) clearTimeout(timer);
    this.#drop();
    for (const entry of this.#pending.values()) entry.fail(error);
    this.#pending.clear();
    for (const subscription of this.#subscriptions) failed ? subscription.fail(error) : subscription.finish();
    this.#subscriptions.clear();
    this.#say("closed");
  }

  #say(state) {
    this.#options.onState?.(state, this.node);
  }

  #after(ms, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  #every(ms, act) {
    const again = () => {
      act();
      if (!this.#closed) this.#after(ms, again);
    };
    this.#after(ms, again);
  }

  #cancel(timer) {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }
}

/** Events of one stream, in order, each once: an async iterable. */
class Subscription {
  sub = null; // the server's number for it on the socket in use
  #queue = [];
  #waiting = []; // those who called next() before there was an event; each has an answer and a fail
  #over = null;
  #taken = 0;
  #connection;

  constructor(stream, options, connection) {
    this.stream = stream;
    this.options = options;
    /** Where to go on: what was asked for, and then the seq after the last event. */
    this.cursor = options.from ?? "new";
    this.#connection = connection;
  }

  /** Events held here that were not taken yet: never more than the credit. */
  get held() {
    return this.#queue.length;
  }

  /** Calls `act` with one event after the other, waiting for what it returns; resolves when the subscription ends. */
  async each(act) {
    for await (const event of this) await act(event);
  }

  close() {
    this.#connection.close();
    this.finish();
  }

  next() {
    if (this.#queue.length > 0) return Promise.resolve({ value: this.#shift(), done: false });
    if (this.#over) return this.#over.error ? Promise.reject(this.#over.error) : Promise.resolve({ value: undefined, done: true });
    return new Promise((answer, fail) => this.#waiting.push({ answer, fail }));
  }

  return() {
    this.close();
    return Promise.resolve({ value: undefined, done: true });
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  // From here on: for the connection.

  started({ sub, from }) {
    this.sub = sub;
    this.#taken = 0;
    if (typeof this.cursor !== "number") this.cursor = from;
  }

  push(events) {
    for (const event of events) {
      if (typeof this.cursor === "number" && event.seq < this.cursor) {
        this.#give(1);
        continue;
      }
      this.cursor = event.seq + 1;
      this.#queue.push(event);
      const waiting = this.#waiting.shift();
      if (waiting) waiting.answer({ value: this.#shift(), done: false });
    }
  }

  gap(gap) {
    this.cursor = Math.max(typeof this.cursor === "number" ? this.cursor : 0, gap.to + 1);
    this.options.onGap?.(gap);
  }

  fail(error) {
    this.#over ??= { error };
    for (const waiting of this.#waiting.splice(0)) waiting.fail(error);
  }

  finish() {
    this.#over ??= {};
    for (const waiting of this.#waiting.splice(0)) waiting.answer({ value: undefined, done: true });
  }

  #shift() {
    const event = this.#queue.shift();
    this.#give(1);
    return event;
  }

  // Gives credit back in halves, so that a frame of credit serves many events.
  #give(count) {
    this.#taken += count;
    if (this.sub === null || this.#taken < this.options.credit / 2) return;
    this.#connection.credit(this.#taken);
    this.#taken = 0;
  }
}

function randomId() {
  // randomUUID exists only where the page is served securely or from this machine.
  if (globalThis.crypto?.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
