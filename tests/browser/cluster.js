// A cluster of a test's own: `evermesh dev` with a temporary folder. $EVERMESH is the binary.
//
//   const cluster = await start({ nodes: 3 });
//   cluster.urls; await cluster.kill(cluster.urls[1]); await cluster.start(cluster.urls[1]); await cluster.end();

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Cluster, until } from "./nodes.js";

/** Nodes that are ready. `basePort`: the first of free ports; the peers' are 100 above. */
export async function start({ nodes = 3, basePort } = {}) {
  const binary = process.env.EVERMESH;
  if (!binary) throw new Error("EVERMESH says which binary to test; ./test browser sets it");
  const data = await mkdtemp(join(tmpdir(), "evermesh-cluster-"));
  const base = basePort ?? (await freePorts(nodes));
  const child = spawn(binary, ["dev", "--nodes", String(nodes), "--base-port", String(base), "--data", data], { stdio: ["ignore", "pipe", "pipe"] });
  const urls = Array.from({ length: nodes }, (_, at) => `http://127.0.0.1:${base + at}`);
  const cluster = new OwnCluster(binary, urls, data, child);
  try {
    await until("all nodes are ready", () => cluster.ready(), 60_000);
    return cluster;
  } catch (error) {
    await cluster.end();
    throw new Error(`${error.message}\n${cluster.log}`);
  }
}

class OwnCluster extends Cluster {
  /** The last of what its processes wrote. */
  log = "";
  #child;

  constructor(binary, urls, data, child) {
    super(binary, urls, data);
    this.#child = child;
    child.on("error", (error) => (this.log += error.message));
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (text) => (this.log = (this.log + text).slice(-20_000)));
  }

  async ready() {
    if (this.#ended()) throw new Error("evermesh dev ended");
    const answers = await Promise.all(this.urls.map((url) => fetch(`${url}/readyz`).catch(() => null)));
    return answers.every((answer) => answer?.ok);
  }

  /** Ends the processes and removes their data. */
  async end() {
    if (!this.#ended()) {
      const ended = new Promise((done) => this.#child.once("exit", done));
      this.#child.kill("SIGTERM");
      const late = setTimeout(() => this.#child.kill("SIGKILL"), 20_000);
      await ended;
      clearTimeout(late);
    }
    await rm(this.data, { recursive: true, force: true, maxRetries: 5 });
  }

  #ended() {
    return this.#child.pid === undefined || this.#child.exitCode !== null || this.#child.signalCode !== null;
  }
}

async function freePorts(nodes) {
  for (let tries = 0; tries < 100; tries += 1) {
    const base = 20_000 + Math.floor(Math.random() * 10_000);
    const ports = Array.from({ length: nodes }, (_, at) => [base + at, base + 100 + at]).flat();
    if ((await Promise.all(ports.map(isFree))).every(Boolean)) return base;
  }
  throw new Error("no free ports found");
}

const isFree = (port) =>
  new Promise((answer) => {
    const server = net.createServer();
    server.once("error", () => answer(false));
    server.listen(port, "127.0.0.1", () => server.close(() => answer(true)));
  });
