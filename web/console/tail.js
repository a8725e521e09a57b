// A stream's events: a window that follows the end, or stands anywhere in the past.
//
// - Events are in order, the newest below. At the end the window goes on live; scrolled up it stands still and takes nothing, so a
//   fast stream costs nothing while somebody reads.
// - The window is bounded, and only its visible rows are drawn, at most once a frame, however many events come.

import { connect } from "/evermesh.js";
import { ask, node, streamPath } from "./api.js";
import { clock, count, plural } from "./format.js";
import { Cell } from "./view.js";

const WINDOW_MAX = 2000;
const PAGE = 200;
/** How far back a window begins that goes live. */
const BACK = 200;
const CREDIT = 1000;

/** Rows that fly by cannot be read: they are drawn at most so often, and the frames between are free for everything else. */
const DRAW_MS = 30;

/** One connection for every live window; it goes to another node by itself. */
let connection = null;
export const connectionState = new Cell({ state: "connecting", at: "" });

function live() {
  connection ??= connect(location.origin, { onState: (state, at) => (connectionState.value = { state, at }) });
  return connection;
}

export class Tail {
  changes = new Cell(0);
  events = [];
  subject = "";
  /** `live`, `past` or `busy`. */
  mode = "busy";
  error = null;
  /** Whether the end of the stream is what the window ends with. */
  atEnd = false;
  /** The seq that the window begins at, and the one behind it. */
  oldest = 1;
  next = 1;
  /** Rows added before the first one, less those taken away there: who draws them keeps its place by it. */
  shift = 0;
  #asking = false;
  #subscription = null;
  #frame = 0;
  #drawn = 0;
  #waiting = [];
  #turn = 0;

  constructor(stream) {
    this.stream = stream;
  }

  /** From the last few events on. */
  async goLive() {
    await this.#begin(async (mine) => {
      const { last_seq: last, first_seq: first } = await ask(streamPath(this.stream));
      const from = Math.max(1, first, last - BACK + 1);
      if (!mine()) return;
      this.oldest = from;
      this.#follow(from);
    });
  }

  /** From a seq, a word or a time on: a page of what is there. */
  async goTo(from) {
    await this.#begin(async (mine) => {
      const page = await this.#page(from);
      if (!mine()) return;
      this.oldest = page.events[0]?.seq ?? page.next;
      this.#take(page, "past");
    });
  }

  /** What comes behind the window; at the end it goes live. */
  async more() {
    if (this.mode !== "past" || this.atEnd) return;
    const turn = this.#turn;
    this.mode = "busy";
    try {
      const page = await this.#page(this.next);
      if (turn !== this.#turn) return;
      this.#take(page, "past");
    } catch (error) {
      if (turn === this.#turn) this.#fail(error);
    }
  }

  /** What comes before the window, as far as `first`. */
  async older(first) {
    const from = Math.max(first, this.oldest - PAGE);
    if (this.mode !== "past" || this.#asking || from >= this.oldest) return;
    const turn = this.#turn;
    this.#asking = true;
    try {
      const page = await this.#page(from);
      if (turn !== this.#turn || this.mode !== "past") return;
      const found = page.events.filter((event) => event.seq < this.oldest);
      this.events.unshift(...found);
      this.shift += found.length;
      this.oldest = from;
      const surplus = this.events.splice(WINDOW_MAX);
      if (surplus.length > 0) [this.next, this.atEnd] = [surplus[0].seq ?? surplus[0].gap.from, false];
      this.#changed();
    } catch (error) {
      if (turn === this.#turn) this.#fail(error);
    } finally {
      this.#asking = false;
    }
  }

  /** From where the window ends; where the stream has gone on too far, from its last events. */
  async resume() {
    const { last_seq: last } = await ask(streamPath(this.stream)).catch(() => ({ last_seq: Infinity }));
    if (!(last - this.next < WINDOW_MAX)) return this.goLive();
    this.#follow(this.next);
  }

  /** Stands still. */
  pause() {
    if (this.mode === "live") this.#stop("past");
    this.atEnd = false;
    this.#changed();
  }

  end() {
    this.#turn += 1;
    this.#stop("busy");
  }

  async #begin(act) {
    const turn = ++this.#turn;
    this.#stop("busy");
    this.events = [];
    this.error = null;
    this.#changed();
    try {
      await act(() => turn === this.#turn);
    } catch (error) {
      if (turn === this.#turn) this.#fail(error);
    }
  }

  #page(from) {
    const query = new URLSearchParams({ from, limit: PAGE });
    if (this.subject) query.set("subject", this.subject);
    return ask(`${streamPath(this.stream)}/events?${query}`);
  }

  #take(page, mode) {
    for (const gap of page.gaps ?? []) this.events.push({ gap });
    this.events.push(...page.events);
    this.#trim();
    this.next = page.next;
    this.atEnd = page.next > page.last_seq;
    this.mode = mode;
    this.#changed();
  }

  #follow(from) {
    this.#stop("live");
    this.atEnd = true;
    this.error = null;
    this.next = from;
    const options = { from, credit: CREDIT, onGap: (gap) => mine === this.#subscription && this.#arrive({ gap }) };
    if (this.subject) options.subject = this.subject;
    const mine = live().subscribe(this.stream, options);
    this.#subscription = mine;
    this.#read(mine);
    this.#changed();
  }

  async #read(mine) {
    try {
      for await (const event of mine) {
        if (mine !== this.#subscription) return;
        this.#arrive(event);
      }
    } catch (error) {
      if (mine === this.#subscription) this.#fail(error);
    }
  }

  /** Kept until the next drawing, which shows all of them at once. */
  #arrive(event) {
    this.#waiting.push(event);
    if (event.seq) this.next = event.seq + 1;
    if (this.#waiting.length > WINDOW_MAX) this.#waiting.splice(0, this.#waiting.length - WINDOW_MAX);
    this.#frame ||= requestAnimationFrame((now) => this.#draw(now));
  }

  #draw(now) {
    if (now - this.#drawn < DRAW_MS) {
      this.#frame = requestAnimationFrame((later) => this.#draw(later));
      return;
    }
    this.#frame = 0;
    this.#drawn = now;
    this.#pour();
  }

  #pour() {
    this.events.push(...this.#waiting);
    this.#waiting = [];
    this.#trim();
    this.#changed();
  }

  #trim() {
    const surplus = this.events.length - WINDOW_MAX;
    if (surplus <= 0) return;
    this.events.splice(0, surplus);
    this.shift -= surplus;
    this.oldest = this.events[0].seq ?? this.events[0].gap.from;
  }

  #stop(mode) {
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
    if (this.#waiting.length > 0) this.#pour();
    const subscription = this.#subscription;
    this.#subscription = null;
    subscription?.close();
    this.mode = mode;
  }

  #fail(error) {
    this.#stop("past");
    this.error = error;
    this.#changed();
  }

  #changed() {
    this.changes.value += 1;
  }
}

/** What an event holds, in one line. */
export function preview(event) {
  if (event.preview !== undefined) return event.preview;
  const text = event.data_base64 !== undefined ? `base64 ${event.data_base64}` : typeof event.data === "string" ? event.data : JSON.stringify(event.data);
  event.preview = (text ?? "").slice(0, 240).replaceAll(/\s+/g, " ");
  return event.preview;
}

/** The same in full, for reading. */
export function full(event) {
  if (event.data_base64 !== undefined) return event.data_base64;
  return typeof event.data === "string" ? event.data : JSON.stringify(event.data, null, 2);
}

export const gapSays = ({ from, to }) => `retention removed ${from === to ? count(from) : `${count(from)} to ${count(to)}, ${plural(to - from + 1, "event")}`}`;

/** `10:15:30.123`, in the reader's own time. */
export function moment(time) {
  return `${clock(time)}.${(time.split(".")[1] ?? "000").slice(0, 3)}`;
}

export const curlOf = (stream, seq) => `curl -i ${node()}${streamPath(stream)}/events/${seq}`;
