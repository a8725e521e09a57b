// Running nodes that a test works on: `evermesh dev` started them with this data folder, and ends and starts them again.

import { execFile } from "node:child_process";
import { promisify } from "node:util";

const run = promisify(execFile);

export class Cluster {
  constructor(binary, urls, data) {
    Object.assign(this, { binary, urls, data });
  }

  /** What n1, n2 and n3 are called is in the order of their ports. */
  name(url) {
    return `n${this.urls.indexOf(url) + 1}`;
  }

  /** SIGKILL; returns when the process has ended. */
  async kill(url) {
    await this.#dev("kill", url);
  }

  /** SIGTERM: the node hands over and says goodbye; returns when the process has ended. */
  async stop(url) {
    await this.#dev("stop", url);
  }

  /** Starts a node that ended; returns when it is ready. */
  async start(url) {
    await this.#dev("start", url);
    await until(`${this.name(url)} is ready`, () => fetch(`${url}/readyz`).then(({ ok }) => ok, () => false));
  }

  async createStream(stream) {
    await this.call(0, "PUT", `/v1/streams/${stream}`, { replicas: 3 });
  }

  /** A call of the API of one node; an answer that is no success is an error. */
  async call(node, method, path, body) {
    const answer = await fetch(this.urls[node] + path, { method, body: body && JSON.stringify(body), headers: { "Content-Type": "application/json" } });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
    return text && JSON.parse(text);
  }

  /** Every event of a stream as one node has it. */
  async events(node, stream) {
    const all = [];
    for (let from = 1; ; ) {
      const page = await this.call(node, "GET", `/v1/streams/${stream}/events?from=${from}&limit=1000`);
      all.push(...page.events);
      if (page.events.length === 0 || page.next > page.last_seq) return all;
      from = page.next;
    }
  }

  #dev(verb, url) {
    return run(this.binary, ["dev", verb, this.name(url), "--data", this.data]);
  }
}

/** Waits for a condition; says what it waited for when it does not come. */
export async function until(what, condition, ms = 30000) {
  for (const end = Date.now() + ms; !(await condition()); ) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}
