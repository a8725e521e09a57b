// The browser client in a real Chromium, and in Node. While every node dies once: 10,000 events, none lost, none twice, in order.
// `./test browser` runs it. CLIENT=FILE takes the client from a file instead of from the nodes, for work on it without a build; EVERMESH
// is the binary, BASE_PORT the first port where free ones will not do.

import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect } from "../../web/client/evermesh.js";
import { launch } from "./browser.js";
import { start } from "./cluster.js";
import { serve } from "./serve.js";
import { Follower } from "./failover.js";
import { until } from "./nodes.js";

const SOURCE = new URL("../../web/client/evermesh.js", import.meta.url);
const EVENTS = 10000;
const PER_SECOND = 800;
const IN_FLIGHT = 64;
// Three nodes killed, then one stopped as an operator would.
const ROUNDS = ["kill", "kill", "kill", "stop"];
const SHARE = EVENTS / ROUNDS.length;

let cluster, pages, browser, client;

before(async () => {
  const { CLIENT, BASE_PORT } = process.env;
  cluster = await start({ basePort: BASE_PORT && Number(BASE_PORT) });
  pages = await serve(new URL(".", import.meta.url), CLIENT && { "/evermesh.js": await readFile(CLIENT) });
  browser = await launch({ bfcache: true });
  client = `${CLIENT ? pages.url : cluster.urls[0]}/evermesh.js`;
});
after(async () => {
  await browser?.close();
  await pages?.close();
  await cluster?.end();
});

const publishN = (stream, n) => cluster.call(0, "POST", `/v1/streams/${stream}/events`, { n });

/** Waits for a condition; an error also says what the pages complained of. */
function soon(what, condition) {
  return until(what, condition, 60_000).catch((error) => assert.fail([error.message, ...browser.errors].join("\n")));
}

async function failoverPage() {
  const page = await browser.page(`${pages.url}/failover.html?${new URLSearchParams({ client, node: cluster.urls[0] })}`);
  await page.waitForFunction(() => window.traffic);
  return page;
}

test("the nodes serve the client of this repository", { skip: process.env.CLIENT && "CLIENT is given" }, async () => {
  const served = await fetch(`${cluster.urls[0]}/evermesh.js`).then((answer) => answer.text());
  assert.ok(served === (await readFile(SOURCE, "utf8")), "the binary is older than web/client: ./test build");
});

test("every node dies while a page publishes and subscribes", { timeout: 300000 }, async (t) => {
  const stream = "browser-failover";
  await cluster.createStream(stream);
  const page = await failoverPage();
  const nodeMesh = connect({ nodes: cluster.urls });
  t.after(() => nodeMesh.close());
  const inNode = new Follower(nodeMesh, stream, { from: "earliest", until: EVENTS });
  await page.evaluate(([stream, options]) => window.traffic.run(stream, options), [stream, { events: EVENTS, perSecond: PER_SECOND, inFlight: IN_FLIGHT }]);

  const allow = (n) => page.evaluate((n) => void (window.traffic.allowed = n), n);
  const taken = () => page.evaluate(() => window.traffic.followers[0].report.taken);
  const spared = new Set(cluster.urls);
  for (const [round, how] of ROUNDS.entries()) {
    // Half of the round's events come before the node dies, the others while it is away; should it take long, the last ones wait for it.
    await allow((round + 1) * SHARE - 1);
    await soon("half of the round's events are there", async () => (await taken()) >= (round + 0.5) * SHARE);
    const used = await page.evaluate(() => window.traffic.mesh.node);
    const victim = how === "stop" || spared.has(used) ? used : [...spared][0];
    spared.delete(victim);
    await cluster[how](victim);
    await soon("events come without it", async () => (await taken()) >= (round + 0.55) * SHARE);
    await cluster.start(victim);
  }
  await allow(EVENTS);
  const { published, followed, states } = await page.evaluate(async () => {
    const [published, ...followed] = await window.traffic.done;
    return { published, followed, states: window.traffic.states };
  });
  followed.push(await inNode.done);

  assert.deepEqual(published.wrong, []);
  assert.equal(published.acknowledged, EVENTS);
  for (const { taken, lastSeq, wrong, gaps } of followed) {
    assert.deepEqual({ taken, lastSeq, wrong, gaps }, { taken: EVENTS, lastSeq: EVENTS, wrong: [], gaps: [] });
  }
  for (const node of cluster.urls.keys()) {
    const kept = await cluster.events(node, stream);
    assert.deepEqual(kept.map(({ seq, data }) => [seq, data.n]), Array.from({ length: EVENTS }, (_, i) => [i + 1, i + 1]), `what node ${node + 1} has`);
  }
  // Chromium says in its console that a connection broke; anything else would be a fault.
  assert.deepEqual(browser.errors.filter((error) => !/WebSocket connection to/.test(error)), []);

  const away = pauses(states);
  assert.ok(away.length >= 3, `the page lost its node ${away.length} times`);
  const ms = (value) => `${Math.round(value)} ms`;
  console.log(`Chromium ${browser.version}: ${EVENTS} events in ${ms(published.ms)}, ${ROUNDS.join(", ")}; none lost, none twice, in order`);
  console.log(`  page: ${away.length} reconnects, without a connection for ${away.map(ms).join(", ")}; ${published.duplicates} publishes were sent again and stored already`);
  console.log(`  longest pause between two events: page ${ms(followed[0].longestPauseMs)}, page with a small credit ${ms(followed[1].longestPauseMs)}, Node ${process.versions.node} ${ms(followed[2].longestPauseMs)}`);
  console.log(`  slowest acknowledgement: ${ms(published.longestMs)}; the page waited ${ms(published.heldMs)} in all for nodes to be back before the next one died`);
});

/** How long each time without a connection was, from the states in their order. */
function pauses(states) {
  const found = [];
  let since;
  for (const { state, at } of states) {
    if (state === "resuming") since ??= at;
    else if (state === "open" && since !== undefined) {
      found.push(at - since);
      since = undefined;
    }
  }
  return found;
}

test("a page comes back from the back/forward cache and goes on where it was", { timeout: 120000 }, async () => {
  const stream = "browser-bfcache";
  await cluster.createStream(stream);
  await publishN(stream, 1);
  const page = await failoverPage();
  await page.evaluate((stream) => window.traffic.follow(stream, 3), stream);
  await soon("the first event", () => page.evaluate(() => window.traffic.followers[0].report.taken === 1));
  await page.goto(`${cluster.urls[1]}/livez`);
  await publishN(stream, 2);
  // Not `goBack`, which waits for a load that does not happen.
  await page.evaluate(() => void setTimeout(() => history.back()));
  await soon("the page is shown again, as it was", () => page.evaluate(() => window.traffic?.pages === 1).catch(() => false));
  await publishN(stream, 3);
  const report = await page.evaluate(() => window.traffic.followers[0].done);
  assert.deepEqual([report.taken, report.wrong, report.resumed], [3, [], 1]);
});

test("the first page of docs/browser-client.md does what it says", { timeout: 120000 }, async (t) => {
  const document = await readFile(new URL("../../docs/browser-client.md", import.meta.url), "utf8");
  const [, html] = document.match(/```html\n([\s\S]*?)```/);
  const folder = await mkdtemp(join(tmpdir(), "evermesh-page-"));
  t.after(() => rm(folder, { recursive: true }));
  const file = join(folder, "page.html");
  await writeFile(file, html.replace("http://127.0.0.1:4701/evermesh.js", client).replaceAll("http://127.0.0.1:4701", cluster.urls[0]));
  await cluster.createStream("orders");
  const page = await browser.page(`file://${file}`);
  await page.click("#order");
  await page.click("#order");
  const items = page.locator("#list li");
  await soon("two events are in the list", async () => (await items.count()) === 2);
  assert.deepEqual((await items.allTextContents()).map((text) => text.slice(0, 9)), ['1: {"at":', '2: {"at":']);
});
