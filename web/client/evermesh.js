// The browser client of Evermesh: one connection to whichever node answers, many streams, both directions.
// An ES module without dependencies, for browsers and for Node 20 and newer. `evermesh.d.ts` has every name with its meaning.
//
//   import { connect } from "/evermesh.js";
//   const mesh = connect({ nodes: location.origin });
//   await mesh.publish("orders", { order: 1001 }, { subject: "orders.eu.created" });
//   mesh.subscribe("orders", { from: "earliest" }, (event) => console.log(event.seq, event.data));
//
// What is always true:
// - When a node goes away, the connection moves to another; subscriptions go on after the last event received, and publishes
//   without an answer are sent again under the same event id and in the same order, so that each is stored once.
// - A subscription gives every event once, in order of seq. What is missing is told as a gap, in its place, never left out silently.
// - Nothing here grows without bound: a subscription holds at most `credit` events that were not taken yet, and a connection at
//   most `maxPending` publishes without an answer.
// - After `close()` no handler is called any more and no timer or listener is left.

const PROTOCOL = "evermesh.v1.json";

const DEFAULTS = {
  discover: true,
  credit: 1000,
  maxPending: 1000,
  timeoutMs: 30000,
  connectMs: 5000,
  backoffMs: 100,
  backoffMaxMs: 5000,
  pingMs: 15000,
  probeMs: 5000,
};

const TICK_MS = 1000;
// With publishes under way, this much silence is reason enough to ask whether the node is there: it answers pings at once.
const BUSY_SILENCE_MS = 2000;
// A timer that comes so late has slept. After `SURELY_GONE_MS` the node has closed the connection (its `SILENT_MS`).
const SLEPT_MS = 4000;
const SURELY_GONE_MS = 60000;
const WAKE_PROBE_MS = 2000;
// A connection that stood so long counts as good: the next attempts begin without the back-off of those before it.
const HELD_MS = 1000;
// The first step of the back-off for a node that asked for one.
const STEPS_BACK = 3;
// The node ends the connection for good over a larger message, so it is not sent.
const MESSAGE_BYTES_MAX = 2 * 1024 * 1024;
const NODES_MAX = 64;

const NO_WEBSOCKET =
  "there is no WebSocket here. Browsers and Node 22 or newer have one. In Node 20, start with `node --experimental-websocket`, " +
  'or give one: `import { WebSocket } from "ws"; connect({ nodes, WebSocket })`';

/** An answer of the service that says no, or a connection that is over. `problem` is the service's own. */
export class EvermeshError extends Error {
  constructor(problem) {
    super(problem.detail || problem.title || problem.code);
    this.name = "EvermeshError";
    this.code = problem.code;
    this.problem = problem;
  }
}

/** Opens a connection; it connects by itself, and again whenever it has to. Also `connect(url)` and `connect([url, …], options)`. */
export function connect(nodes, options) {
  return new Mesh(nodes?.nodes ? nodes : { ...options, nodes });
}

/** Listeners by name. One that throws is reported as any uncaught error is, and disturbs nobody else. */
class Emitter {
  #listeners = {};

  on(type, listener) {
    const all = (this.#listeners[type] ??= new Set());
    all.add(listener);
    return () => void all.delete(listener);
  }

  emit(type, detail) {
    for (const listener of [...(this.#listeners[type] ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}

/**
 * The connection.
 *
 * - `#socket` is the one socket in use; what an earlier one still says is not heard.
 * - While there is no socket, exactly one of these is so: a retry is set, the page is suspended, or the connection is over.
 * - `#commands` and `#bySub` are of this socket only; `#publishes` and `#subscriptions` outlive it.
 */
class Mesh extends Emitter {
  #options;
  #seeds;
  #learned = [];
  #tried = new Set(); // addresses since the last connection that held
  #url; // the address in use, or the one that is tried
  #state;
  #told; // the address that the last state event named
  #socket = null;
  #wasOpen = false;
  #openedAt = 0;
  #heardAt = 0;
  #askedUntil = 0; // until when the node must say something; 0: it was not asked
  #failures = 0;
  #suspended = false;
  #over = null; // the error that ended the connection
  #commandId = 0;
  #publishes = new Map(); // command id -> what is published, in the order of the calls
  #commands = new Map(); // command id -> { answer, refuse }
  #subscriptions = new Set();
  #bySub = new Map(); // the node's number -> Subscription
  #timers = new Set();
  #retry; // the next attempt
  #late; // the end of the node's time to take the connection
  #leave; // the turn to go, once the node said goodbye
  #tickedAt = Date.now();
  #listening = new AbortController();

  constructor(options) {
    super();
    this.#seeds = [...new Set([options.nodes ?? []].flat().map(address))];
    if (this.#seeds.length === 0) throw new TypeError("connect needs the address of at least one node");
    this.#options = { ...DEFAULTS, WebSocket: globalThis.WebSocket, ...given(options) };
    if (!this.#options.WebSocket) throw new TypeError(NO_WEBSOCKET);
    const { onState } = options;
    if (onState) this.on("state", ({ state, node }) => onState(state, node));
    this.#listen();
    this.#every(TICK_MS, () => this.#tick());
    this.#open();
  }

  /** "connecting", "open", "resuming" or "closed". */
  get state() {
    return this.#state;
  }

  /** The address of the node in use, or of the one that is tried. */
  get node() {
    return this.#url;
  }

  /** Publishes that have no answer yet. */
  get pending() {
    return this.#publishes.size;
  }

  /** Publishes one event; resolves with its seq when it is durable on a majority of the stream's replicas. */
  async publish(stream, data, options = {}) {
    const { id: event_id, ...event } = wireEvent({ ...options, data });
    const publish = { stream, event_id, ...event, expected_last_seq: options.expectedLastSeq };
    return this.#ask({ publish }, event_id);
  }

  /** Publishes up to 1,000 events, all or none. */
  async publishBatch(stream, events, options = {}) {
    const identified = events.map(wireEvent);
    const publish_batch = { stream, events: identified, expected_last_seq: options.expectedLastSeq };
    return this.#ask({ publish_batch }, identified[0]?.id);
  }

  /** Follows a stream: an async iterable, or, with a handler, a call for each event, one after the other. */
  subscribe(stream, options = {}, handler) {
    if (typeof options === "function") [options, handler] = [{}, options];
    if (this.#over) throw this.#over;
    const subscription = new Subscription(stream, { credit: this.#options.credit, ...given(options) }, {
      credit: (add) => this.#tell({ credit: { sub: subscription.sub, add } }),
      close: () => this.#unsubscribe(subscription),
    });
    if (handler) subscription.handle(handler);
    this.#subscriptions.add(subscription);
    if (this.#isOpen()) this.#start(subscription);
    return subscription;
  }

  /** Ends the connection, its subscriptions, and the publishes that have no answer yet. */
  close() {
    this.#end(new EvermeshError({ code: "closed", title: "the connection was closed here" }), false);
  }

  // The socket.

  #open() {
    this.#cancel(this.#retry);
    this.#url = this.#pick();
    this.#say(this.#wasOpen ? "resuming" : "connecting");
    // A listener of that state may have closed the connection.
    if (this.#over) return;
    const { WebSocket, connectMs } = this.#options;
    let socket;
    try {
      socket = new WebSocket(this.#url.replace(/^http/, "ws") + "/v1/ws", PROTOCOL);
    } catch (error) {
      // A page that came over https may not open ws://, for one; the next address may do better.
      return this.#lost(0, String(error));
    }
    this.#socket = socket;
    this.#late = this.#after(connectMs, () => this.#lost(0, "the node did not take the connection in time"));
    socket.onopen = () => socket === this.#socket && this.#opened();
    socket.onmessage = (message) => socket === this.#socket && this.#hear(message.data);
    socket.onclose = (event) => socket === this.#socket && this.#lost(event.code, event.reason);
    socket.onerror = () => {}; // a close always follows
  }

  /** The next address: not tried yet since a connection held; one of the cluster's at random, else the next that was given. */
  #pick() {
    const known = this.#options.discover ? this.#learned : [];
    const fresh = (urls) => urls.filter((url) => !this.#tried.has(url));
    if (fresh([...known, ...this.#seeds]).length === 0) {
      this.#tried.clear();
      if (this.#hasOthers()) this.#tried.add(this.#url);
    }
    const among = fresh(known);
    const url = among.length > 0 ? among[Math.floor(Math.random() * among.length)] : fresh(this.#seeds)[0];
    this.#tried.add(url);
    return url;
  }

  #hasOthers() {
    return [...(this.#options.discover ? this.#learned : []), ...this.#seeds].some((url) => url !== this.#url);
  }

  #opened() {
    this.#cancel(this.#late);
    this.#wasOpen = true;
    this.#openedAt = this.#heardAt = Date.now();
    for (const subscription of this.#subscriptions) this.#start(subscription);
    for (const [id, entry] of this.#publishes) this.#send(id, entry);
    this.#say("open");
  }

  /** The socket ended, or is given up: the code says whether to come back, and when. */
  #lost(code, reason) {
    if (this.#openedAt && Date.now() - this.#openedAt >= HELD_MS) this.#held();
    this.#drop();
    const next = afterClose(code);
    if (next === "end") {
      return this.#end(new EvermeshError({ code: "refused", title: `the node closed the connection for good: ${code} ${reason}` }), true);
    }
    const { backoffMs, backoffMaxMs } = this.#options;
    const atOnce = next === "now" && this.#failures === 0;
    if (next === "back off") this.#failures = Math.max(this.#failures, STEPS_BACK);
    // Full jitter: those who lost the same node come back spread over the whole time.
    const most = Math.min(backoffMaxMs, backoffMs * 2 ** Math.min(this.#failures, 20));
    this.#failures += 1;
    this.#retry = this.#after(atOnce ? 0 : Math.random() * most, () => this.#open());
    this.#say(this.#wasOpen ? "resuming" : "connecting", { code, reason });
  }

  #held() {
    this.#failures = 0;
    this.#tried = new Set([this.#url]);
  }

  /** Lets go of the socket without touching what was asked for. */
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    this.#openedAt = this.#askedUntil = 0;
    this.#cancel(this.#late);
    this.#leave = this.#cancel(this.#leave);
    this.#commands.clear();
    this.#bySub.clear();
    for (const subscription of this.#subscriptions) {
      subscription.sub = null;
      this.#cancel(subscription.retry);
    }
    for (const entry of this.#publishes.values()) {
      this.#cancel(entry.retry);
      entry.inDoubt ||= entry.underWay;
      entry.underWay = false;
    }
    try {
      socket?.close(1000);
    } catch {
      // It was not open any more.
    }
  }

  #isOpen() {
    return this.#openedAt > 0 && this.#socket.readyState === 1;
  }

  #end(error, failed) {
    if (this.#over) return;
    this.#over = error;
    this.#listening.abort();
    this.#drop();
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers.clear();
    for (const entry of this.#publishes.values()) entry.fail(error);
    this.#publishes.clear();
    for (const subscription of this.#subscriptions) failed ? subscription.fail(error) : subscription.finish();
    this.#subscriptions.clear();
    this.#say("closed", failed ? { error } : {});
  }

  #say(state, why) {
    const [previous, node] = [this.#state, this.#url];
    if (state === previous && node === this.#told && !why) return;
    this.#state = state;
    this.#told = node;
    this.emit("state", { state, previous, node, ...why });
  }

  // Time: what is quiet, what is late, and what slept.

  #tick() {
    const now = Date.now();
    const slept = now - this.#tickedAt - TICK_MS;
    this.#tickedAt = now;
    this.#expire(now);
    if (slept >= SLEPT_MS) return this.#wake(slept);
    if (!this.#isOpen()) return;
    const silent = now - this.#heardAt;
    if (this.#askedUntil > 0) {
      if (now >= this.#askedUntil) this.#lost(0, "the node fell silent");
    } else if (silent >= (this.#publishes.size > 0 ? Math.min(BUSY_SILENCE_MS, this.#options.pingMs) : this.#options.pingMs)) {
      this.#probe(this.#options.probeMs);
    }
  }

  /** Asks the node whether it is there; whatever it says until then is an answer. */
  #probe(waitMs) {
    this.#askedUntil = Date.now() + waitMs;
    this.#tell({ ping: {} });
  }

  /** Time has passed unseen, or the network has changed: looks at once instead of waiting for a timer. */
  #wake(slept = 0) {
    if (this.#over || this.#suspended) return;
    // A hidden page's timers are held back for a minute and more while its connection lives; a visible page's are not.
    const hidden = globalThis.document?.visibilityState === "hidden";
    if (!this.#socket) {
      this.#failures = 0;
      this.#open();
    } else if (this.#isOpen()) {
      if (slept >= SURELY_GONE_MS && !hidden) this.#lost(4200, "this machine slept");
      else this.#probe(Math.min(WAKE_PROBE_MS, this.#options.probeMs));
    }
  }

  #listen() {
    const { signal } = this.#listening;
    const listen = (target, types) => {
      for (const [type, act] of Object.entries(types)) target?.addEventListener?.(type, act, { signal });
    };
    const suspend = () => this.#suspend();
    const resume = () => this.#resume();
    // An open connection keeps a page out of the back/forward cache, so it is closed on the way there.
    listen(globalThis, { online: () => this.#wake(), pagehide: suspend, pageshow: resume });
    const seen = () => document.visibilityState === "visible" && this.#wake();
    listen(globalThis.document, { freeze: suspend, resume, visibilitychange: seen });
  }

  #suspend() {
    if (this.#over || this.#suspended) return;
    this.#suspended = true;
    this.#cancel(this.#retry);
    this.#drop();
    this.#say(this.#wasOpen ? "resuming" : "connecting", { reason: "the page is put aside" });
  }

  #resume() {
    if (this.#over || !this.#suspended) return;
    this.#suspended = false;
    this.#failures = 0;
    this.#tried.clear();
    this.#open();
  }

  // Commands and answers.

  /** A publish: sent again, on the next socket too, until it has an answer or its time is over. */
  #ask(command, eventId) {
    return new Promise((answer, fail) => {
      if (this.#over) return fail(this.#over);
      if (this.#publishes.size >= this.#options.maxPending) {
        return fail(new EvermeshError({ code: "too-many-pending", title: `${this.#publishes.size} publishes wait for an answer already` }));
      }
      const id = ++this.#commandId;
      const text = JSON.stringify({ id, ...command });
      if (bytesOf(text) > MESSAGE_BYTES_MAX) {
        return fail(new EvermeshError({ code: "body-too-large", title: `a publish has at most ${MESSAGE_BYTES_MAX} bytes`, limit: MESSAGE_BYTES_MAX }));
      }
      // `underWay`: an answer is awaited; `inDoubt`: one that was awaited never came, so it may be stored.
      const entry = { text, eventId, answer, fail, deadline: Date.now() + this.#options.timeoutMs, underWay: false, inDoubt: false };
      this.#publishes.set(id, entry);
      if (this.#isOpen()) this.#send(id, entry);
    });
  }

  #send(id, entry) {
    if (!this.#publishes.has(id) || !this.#isOpen()) return;
    entry.underWay = true;
    this.#socket.send(entry.text);
  }

  /** A command that means something on this socket only. */
  #tell(command, answer = () => {}, refuse = () => {}) {
    if (!this.#isOpen()) return;
    const id = ++this.#commandId;
    this.#commands.set(id, { answer, refuse });
    this.#socket.send(JSON.stringify({ id, ...command }));
  }

  #hear(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return this.#lost(4100, "the node sent what is not JSON");
    }
    this.#heardAt = Date.now();
    this.#askedUntil = 0;
    this.#take(frame);
  }

  #take(frame) {
    const subscription = this.#bySub.get(frame.sub);
    if (frame.id != null) this.#answered(frame);
    else if (frame.events) subscription?.push(frame.events);
    else if (frame.gap) subscription?.gap(frame.gap);
    else if (frame.nodes) this.#learn(frame.nodes);
    else if (frame.goaway) this.#sentAway(frame.goaway.reconnect_within_ms);
    else if (frame.error && subscription) this.#refused(subscription, frame.error);
  }

  #answered({ id, error, ack, ...frame }) {
    const command = this.#commands.get(id);
    const entry = this.#publishes.get(id);
    if (command) {
      this.#commands.delete(id);
      error ? command.refuse(error) : command.answer(frame);
    } else if (entry && error?.retryable) {
      entry.underWay = false;
      entry.inDoubt ||= error.code === "outcome-unknown";
      entry.refusal = error;
      this.#cancel(entry.retry);
      entry.retry = this.#after(restOf(error), () => this.#send(id, entry));
    } else if (entry) {
      this.#publishes.delete(id);
      error ? entry.fail(publishError(error, entry)) : entry.answer(ack);
    }
  }

  #expire(now) {
    for (const [id, entry] of this.#publishes) {
      if (entry.deadline > now) continue;
      this.#publishes.delete(id);
      this.#cancel(entry.retry);
      entry.fail(publishError(lateProblem(entry), entry));
    }
  }

  #learn(nodes) {
    // An address that no URL can be made of is of no use here.
    this.#learned = [...new Set(nodes.flatMap(({ url }) => (URL.canParse(url) ? [address(url)] : [])))].slice(0, NODES_MAX);
    this.emit("nodes", nodes);
  }

  /** The node says goodbye: this connection goes within the time given, each at its own moment. Alone, it stays until the close. */
  #sentAway(withinMs) {
    if (this.#leave || !this.#hasOthers()) return;
    this.#leave = this.#after(Math.random() * withinMs * 0.8, () => this.#lost(4200, "the node is leaving"));
  }

  // Subscriptions.

  #start(subscription) {
    const node = this.#url;
    const answer = ({ subscribed }) => {
      if (!this.#subscriptions.has(subscription)) return this.#tell({ unsubscribe: { sub: subscribed.sub } });
      if (subscription.isAnother(subscribed)) {
        this.#tell({ unsubscribe: { sub: subscribed.sub } });
        this.#subscriptions.delete(subscription);
        return subscription.fail(new EvermeshError(REPLACED));
      }
      this.#bySub.set(subscribed.sub, subscription);
      subscription.started(subscribed, node);
    };
    this.#tell({ subscribe: subscription.begin() }, answer, (problem) => this.#refused(subscription, problem));
  }

  /** The node does not serve a subscription, or no longer: it is asked again, unless that would be of no use. */
  #refused(subscription, problem) {
    this.#bySub.delete(subscription.sub);
    subscription.sub = null;
    if (!this.#subscriptions.has(subscription)) return;
    if (problem.retryable) {
      subscription.retry = this.#after(restOf(problem), () => this.#subscriptions.has(subscription) && this.#start(subscription));
    } else {
      this.#subscriptions.delete(subscription);
      subscription.fail(new EvermeshError(problem));
    }
  }

  #unsubscribe(subscription) {
    if (!this.#subscriptions.delete(subscription)) return;
    this.#cancel(subscription.retry);
    if (subscription.sub === null) return;
    this.#bySub.delete(subscription.sub);
    this.#tell({ unsubscribe: { sub: subscription.sub } });
  }

  // Timers, all of which end with the connection.

  #after(ms, act) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      act();
    }, ms);
    this.#timers.add(timer);
    return timer;
  }

  #every(ms, act) {
    this.#after(ms, () => {
      this.#every(ms, act);
      act();
    });
  }

  #cancel(timer) {
    clearTimeout(timer);
    this.#timers.delete(timer);
  }
}

/**
 * Events of one stream, in order, each once.
 *
 * - `#cursor` is the seq after the last that was received: where the next socket goes on.
 * - What the node may still send, what is held here, and what was taken and not given back yet add up to `credit`.
 */
class Subscription extends Emitter {
  sub = null; // the node's number for it on the socket in use
  retry; // the connection's timer to ask again
  #options;
  #connection;
  #cursor;
  #created;
  #queue = []; // events, and gaps as { gap } between them
  #held = 0; // events in the queue
  #taken = 0; // events taken since credit was last given back
  #waiting = []; // those who called next() before there was an event
  #over = null;
  #settle;
  #starts = 0;

  constructor(stream, options, connection) {
    super();
    const { from = "new", credit, onGap } = options;
    if (!(Number.isInteger(credit) && credit > 0)) throw new RangeError("credit is a whole number of events, at least 1");
    this.stream = stream;
    /** The seq of the last event given out, to go on after it another day; `undefined` before the first. */
    this.lastSeq = undefined;
    this.#options = options;
    this.#connection = connection;
    this.#cursor = typeof from === "number" ? Math.max(1, from) : from instanceof Date ? from.toISOString() : from;
    /** Resolves when the subscription is closed; rejects when it fails. */
    this.ended = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    // Whoever iterates is told by next(), so this one may stay unheard.
    this.ended.catch(() => {});
    if (onGap) this.on("gap", onGap);
  }

  /** Events received that were not taken yet: never more than the credit. */
  get held() {
    return this.#held;
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
    const event = this.#shift();
    if (event) return Promise.resolve({ value: event, done: false });
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

  /** A handler's failure ends the subscription; nobody asking for `ended` makes it an unhandled rejection, which is seen. */
  handle(handler) {
    this.ended = this.each(handler);
  }

  begin() {
    this.#taken = 0;
    const { credit, subject } = this.#options;
    return { stream: this.stream, from: this.#cursor, credit: credit - this.#held, subject };
  }

  /** Whether the stream was deleted and made anew since this began: it has other events under the same seqs then. */
  isAnother({ created }) {
    return created !== undefined && (this.#created ??= created) !== created;
  }

  started({ sub, from }, node) {
    this.sub = sub;
    if (typeof this.#cursor !== "number") this.#cursor = from;
    this.emit("subscribed", { from: this.#cursor, node, resumed: this.#starts++ > 0 });
    // What was taken while the answer was on its way.
    this.#give(0);
  }

  push(events) {
    for (const event of events) {
      if (event.seq < this.#cursor) {
        this.#give(1);
        continue;
      }
      // A filter leaves holes on purpose; without one, a hole that nobody told of must not pass for nothing.
      if (event.seq > this.#cursor && this.#options.subject === undefined) this.#miss(this.#cursor, event.seq - 1, false);
      this.#cursor = event.seq + 1;
      this.#queue.push(event);
      this.#held += 1;
    }
    this.#pump();
  }

  gap({ from, to }) {
    if (to < this.#cursor) return;
    this.#miss(Math.max(from, this.#cursor), to, true);
    this.#cursor = to + 1;
    this.#pump();
  }

  fail(error) {
    if (this.#over) return;
    this.#over = { error };
    this.#settle.reject(error);
    for (const waiting of this.#waiting.splice(0)) waiting.fail(error);
  }

  finish() {
    if (this.#over) return;
    this.#over = {};
    this.#queue = [];
    this.#held = 0;
    this.#settle.resolve();
    for (const waiting of this.#waiting.splice(0)) waiting.answer({ value: undefined, done: true });
  }

  #miss(from, to, announced) {
    const last = this.#queue.at(-1)?.gap;
    if (last && last.to + 1 === from && last.announced === announced) last.to = to;
    else this.#queue.push({ gap: { from, to, announced } });
  }

  #pump() {
    while (this.#waiting.length > 0) {
      const event = this.#shift();
      if (!event) return;
      // A listener of a gap before it may have ended all.
      this.#waiting.shift()?.answer({ value: event, done: false });
    }
  }

  /** The next event; gaps before it are told on the way, so that they come where they belong. */
  #shift() {
    for (let item; (item = this.#queue.shift()); ) {
      if (item.gap) {
        this.emit("gap", item.gap);
        continue;
      }
      this.#held -= 1;
      this.lastSeq = item.seq;
      this.#give(1);
      return item;
    }
    return undefined;
  }

  /** Gives credit back in halves, so that a frame of credit serves many events. */
  #give(count) {
    this.#taken += count;
    if (this.sub === null || this.#taken === 0 || this.#taken < this.#options.credit / 2) return;
    this.#connection.credit(this.#taken);
    this.#taken = 0;
  }
}

/** What a close code asks for; the list is in `docs/websocket.md`. */
function afterClose(code) {
  if (code === 1000 || code === 1008 || code === 1009 || (code >= 4000 && code <= 4099)) return "end";
  if (code === 1011 || code === 1013 || (code >= 4100 && code <= 4199)) return "back off";
  return code >= 4200 && code <= 4299 ? "now" : "soon";
}

/** How long to leave the node alone after a refusal: what it asked for, and up to as much again, so that not all come back at once. */
function restOf(problem) {
  return (problem.retry_after_ms ?? 200) * (1 + Math.random());
}

/** What is said of a stream that is another than the one subscribed to. */
const REPLACED = { code: "stream-replaced", title: "the stream was deleted and made anew while no node was connected" };

/** What is said of a publish whose time is over. */
function lateProblem(entry) {
  if (entry.underWay || entry.inDoubt) {
    return { code: "outcome-unknown", title: "no answer in time: publish again under the same id to be sure" };
  }
  return entry.refusal ?? { code: "not-sent", title: "no node could be reached in time; nothing was sent" };
}

function publishError(problem, entry) {
  return Object.assign(new EvermeshError(problem), { eventId: entry.eventId });
}

/** An event as the wire has it; fields that are not given are left out by JSON. */
function wireEvent({ subject, id = randomId(), headers, contentType, content_type = contentType, data, data_base64 }) {
  const bytes = data instanceof ArrayBuffer || ArrayBuffer.isView(data);
  return { id, subject, headers, content_type, ...(bytes ? { data_base64: base64(data) } : { data, data_base64 }) };
}

function base64(data) {
  const bytes = ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data);
  let text = "";
  // In parts, since a call takes only so many arguments.
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** Counts only where the bound could be near: a UTF-16 unit is at most three bytes. */
function bytesOf(text) {
  return text.length * 3 <= MESSAGE_BYTES_MAX ? text.length : new TextEncoder().encode(text).length;
}

/** An address in one form, so that a node is one node: `http://host:port`, with a path where a proxy wants one. */
function address(url) {
  const { protocol, href } = new URL(url?.href ?? url);
  if (!/^(https?|wss?):$/.test(protocol)) throw new TypeError(`${href} is not the http address of a node`);
  return href.replace(/^ws/, "http").replace(/[?#].*$/, "").replace(/\/+$/, "");
}

/** Options without those that are `undefined`, which mean the default. */
function given(options) {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined));
}

function randomId() {
  // randomUUID exists only where the page is served securely or from this machine.
  if (globalThis.crypto?.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
