// What the failover test does through the client, and how it keeps the books: in a page and in Node, the same code.

/** Follows a stream to event `until`, which is `{ n: until }`; what it notes is in `report`. Resolves when the last one is there. */
export class Follower {
  report = { taken: 0, lastSeq: 0, lastN: 0, wrong: [], gaps: [], resumed: 0, longestPauseMs: 0 };
  #lastAt = 0;

  /** `work` is awaited for each event, as a handler with something to do would. */
  constructor(mesh, stream, { until, work = () => {}, ...options }) {
    const { report } = this;
    const subscription = mesh.subscribe(stream, options, async ({ seq, data }) => {
      await work();
      this.#note(seq, data.n);
      if (data.n === until) subscription.close();
    });
    subscription.on("gap", (gap) => report.gaps.push(gap));
    subscription.on("subscribed", ({ resumed }) => (report.resumed += resumed));
    this.done = subscription.ended.then(() => report);
  }

  #note(seq, n) {
    const { report } = this;
    const now = performance.now();
    if (report.taken > 0) report.longestPauseMs = Math.max(report.longestPauseMs, now - this.#lastAt);
    this.#lastAt = now;
    // A new stream: its seqs begin with 1, and so do the numbers.
    const right = seq === report.lastSeq + 1 && n === report.lastN + 1;
    if (!right && report.wrong.length < 10) report.wrong.push({ seq, n, after: { seq: report.lastSeq, n: report.lastN } });
    report.taken += 1;
    report.lastSeq = seq;
    report.lastN = n;
  }
}

/** Publishes `{ n: 1 }` to `{ n: events }`, `perSecond` and with at most `inFlight` without an answer, none beyond `allowed()`. */
export async function publish(mesh, stream, { events, perSecond, inFlight, allowed }) {
  const report = { acknowledged: 0, duplicates: 0, wrong: [], longestMs: 0, heldMs: 0 };
  const began = performance.now();
  const underWay = new Set();
  for (let n = 1; n <= events; n += 1) {
    while (underWay.size >= inFlight) await Promise.race(underWay);
    const held = performance.now();
    while (n > allowed()) await pause(5);
    report.heldMs += performance.now() - held;
    const early = began + report.heldMs + (n * 1000) / perSecond - performance.now();
    if (early > 4) await pause(early);
    const outcome = one(n).finally(() => underWay.delete(outcome));
    underWay.add(outcome);
  }
  await Promise.all(underWay);
  return { ...report, ms: performance.now() - began };

  async function one(n) {
    const from = performance.now();
    try {
      const { seq, duplicate } = await mesh.publish(stream, { n });
      report.acknowledged += 1;
      report.duplicates += duplicate;
      report.longestMs = Math.max(report.longestMs, performance.now() - from);
      // Alone on its stream and in order, the nth event is seq n.
      if (seq !== n) report.wrong.push(`event ${n} was told to be seq ${seq}`);
    } catch (error) {
      report.wrong.push(`event ${n}: ${error.code ?? error}`);
    }
  }
}

function pause(ms) {
  return new Promise((done) => setTimeout(done, ms));
}
