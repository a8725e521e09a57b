// A cluster of real processes for a test: `evermesh dev` with a folder of its own. $EVERMESH is the binary.
//
//   const cluster = await start({ nodes: 3 });
//   cluster.urls; await cluster.kill("n2"); await cluster.start("n2"); await cluster.stop();

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const READY_MS = 60_000;

/** A cluster that is ready. `basePort`: the first of free ports; the peers' are 100 above. */
export async function start({ nodes = 3, basePort, env = {} } = {}) {
  const data = await mkdtemp(join(tmpdir(), "evermesh-cluster-"));
  const base = basePort ?? (await freePorts(nodes));
  const args = ["dev", "--nodes", String(nodes), "--base-port", String(base), "--data", data];
  const child = spawn(process.env.EVERMESH ?? "target/release/evermesh", args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  const cluster = new Cluster(child, data, base, nodes);
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (cluster.log = (cluster.log + text).slice(-20_000)));
  try {
    await cluster.ready();
    return cluster;
  } catch (error) {
    await cluster.stop();
    throw new Error(`${error.message}\n${cluster.log}`);
  }
}

class Cluster {
  log = "";
  #child;
  #data;

  constructor(child, data, base, nodes) {
    this.#child = child;
    this.#data = data;
    /** The nodes' addresses; the first is n1's. */
    this.urls = Array.from({ length: nodes }, (_, at) => `http://127.0.0.1:${base + at}`);
  }

  /** Waits until all nodes say that they are. */
  async ready(urls = this.urls) {
    await until(READY_MS, async () => {
      if (this.#child.exitCode !== null) throw Object.assign(new Error("evermesh dev ended"), { final: true });
      const answers = await Promise.all(urls.map((url) => fetch(`${url}/readyz`, { signal: AbortSignal.timeout(2000) })));
      return answers.every((answer) => answer.ok);
    });
  }

  /** SIGKILL; it has ended when this returns. */
  kill = (name) => this.#say(`kill ${name}`);
  /** Runs again when this returns, and is not yet ready. */
  start = (name) => this.#say(`start ${name}`);

  #say(line) {
    return new Promise((answer, fail) => {
      const socket = net.connect(join(this.#data, "dev.sock"), () => socket.write(`${line}\n`));
      let said = "";
      socket.on("data", (text) => (said += text));
      socket.on("error", fail);
      socket.on("close", () => (said.startsWith("ok") ? answer(said) : fail(new Error(`${line}: ${said}`))));
    });
  }

  async stop() {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const ended = new Promise((done) => this.#child.once("exit", done));
      this.#child.kill("SIGTERM");
      const late = setTimeout(() => this.#child.kill("SIGKILL"), 20_000);
      await ended;
      clearTimeout(late);
    }
    await rm(this.#data, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Tries until `condition` holds; an error is a no, unless it is final. */
export async function until(ms, condition) {
  const deadline = Date.now() + ms;
  let last = new Error("it did not hold");
  while (Date.now() < deadline) {
    try {
      if (await condition()) return;
    } catch (error) {
      if (error.final) throw error;
      last = error;
    }
    await new Promise((next) => setTimeout(next, 50));
  }
  throw new Error(`after ${ms} ms: ${last.message}`);
}

async function freePorts(nodes) {
  for (let tries = 0; tries < 100; tries += 1) {
    const base = 20_000 + Math.floor(Math.random() * 10_000);
    const ports = Array.from({ length: nodes }, (_, at) => [base + at, base + 100 + at]).flat();
    if ((await Promise.all(ports.map(free))).every(Boolean)) return base;
  }
  throw new Error("no free ports found");
}

const free = (port) =>
  new Promise((answer) => {
    const server = net.createServer();
    server.once("error", () => answer(false));
    server.listen(port, "127.0.0.1", () => server.close(() => answer(true)));
  });
