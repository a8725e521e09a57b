// The streams by name, as far as they were scrolled to, and how the visible ones are.
//
// - `names` has no hole: it is the beginning of the list, in order, up to where somebody scrolled.
// - Only what is visible is asked for its state, all in one request; rates come from two answers about the same stream.

import { ask } from "./api.js";
import { Cell } from "./view.js";
import { SPARK_VALUES } from "./spark.js";

const PAGE = 1000;
const STATES_MAX = 100;
/** Streams whose rates are remembered when they are out of sight. */
const RATES_MAX = 2000;

export class Listing {
  /** Counts changes, for the view. */
  changes = new Cell(0);
  prefix = "";
  total = null;
  summaries = [];
  states = new Map(); // name -> { state, rate, history, at }
  error = null;
  #loading = null;

  /** The streams whose names begin with `prefix`, from the first. */
  async find(prefix) {
    this.prefix = prefix;
    this.summaries = [];
    this.total = null;
    await this.refresh(0, 40);
  }

  /** Loads on until there is a row `last`. */
  need(last) {
    this.#loading ??= this.#load(last).finally(() => (this.#loading = null));
    return this.#loading;
  }

  async #load(last) {
    const prefix = this.prefix;
    while (prefix === this.prefix && this.total !== null && this.summaries.length < Math.min(last + 1, this.total)) {
      const after = this.summaries.at(-1)?.name;
      const page = await this.#ask({ after, limit: PAGE });
      // What is asked for next follows what is there now: a refresh may have cut the list meanwhile.
      if (prefix !== this.prefix || this.summaries.at(-1)?.name !== after) return;
      this.summaries.push(...page.streams);
      if (page.streams.length === 0) this.total = this.summaries.length;
      this.#changed();
    }
  }

  /** Asks how the rows `first` to `last` are. What was created or deleted meanwhile moves the others. */
  async refresh(first, last) {
    const prefix = this.prefix;
    const from = Math.min(first, this.summaries.length);
    const limit = Math.min(STATES_MAX, Math.max(1, last - from + 1));
    try {
      const page = await this.#ask({ after: this.summaries[from - 1]?.name, limit, state: true });
      if (prefix !== this.prefix) return;
      const stale = this.total !== null && page.total !== this.total && this.summaries.length > from + page.streams.length;
      this.summaries.splice(from, stale ? Infinity : page.streams.length, ...page.streams);
      this.total = page.total;
      if (page.next === undefined) this.summaries.length = from + page.streams.length;
      for (const { name, state } of page.streams) if (state) this.#note(name, state);
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.#changed();
  }

  #ask({ after, limit, state }) {
    const query = new URLSearchParams({ limit });
    if (this.prefix) query.set("prefix", this.prefix);
    if (after !== undefined) query.set("after", after);
    if (state) query.set("state", "true");
    return ask(`/v1/streams?${query}`);
  }

  #note(name, state) {
    const before = this.states.get(name);
    const known = measure(before, state);
    // Behind the others: the first of the map is the one that was not seen for longest.
    this.states.delete(name);
    this.states.set(name, known);
    if (this.states.size > RATES_MAX) this.states.delete(this.states.keys().next().value);
  }

  #changed() {
    this.changes.value += 1;
  }
}

/** Whether nobody could say how the stream is: none of its replicas was reached. Its numbers are then zeros that mean nothing. */
export const isUnknown = (state) => state.leader === null && state.term === 0;

/** A stream's state with its rate and the rates before it. */
export function measure(before, answer) {
  const at = performance.now();
  const state = isUnknown(answer) && before ? { ...before.state, leader: null, replicas: answer.replicas } : answer;
  if (!before) return { state, at, rate: null, history: [] };
  const rate = Math.max(0, state.last_seq - before.state.last_seq) / ((at - before.at) / 1000);
  return { state, at, rate, history: [...before.history, rate].slice(-SPARK_VALUES) };
}
