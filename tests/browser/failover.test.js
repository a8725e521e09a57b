// The browser client in a real Chromium, and in Node, while every node dies once: 10,000 events, none lost, none twice, in order.
// `./test browser` runs it. CLIENT=FILE takes the client from a file instead of from the nodes, for work on it without a build.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { connect } from "../../web/client/evermesh.js";
import { launch } from "./browser.js";
import { Cluster, until } from "./nodes.js";
import { Follower } from "./failover.js";

const CLIENT = new URL("../../web/client/evermesh.js", import.meta.url);
const EVENTS = 10000;
const PER_SECOND = 1000;
const IN_FLIGHT = 64;
// Three nodes killed, then one stopped as an operator would.
const ROUNDS = ["kill", "kill", "kill", "stop"];
const SHARE = EVENTS / ROUNDS.length;

const cluster = Cluster.given();
let browser;

before(async () => {
  browser = await launch({ bfcache: true });
  await browser.context.route("**/failover.{html,js}", (route) => route.fulfill({ path: new URL(`.${new URL(route.request().url()).pathname}`, import.meta.url).pathname }));
  if (process.env.CLIENT) await browser.context.route("**/evermesh.js", (route) => route.fulfill({ path: process.env.CLIENT }));
});
after(() => browser?.close());

test("the nodes serve the client of this repository", { skip: process.env.CLIENT && "CLIENT is given" }, async () => {
  const served = await fetch(`${cluster.urls[0]}/evermesh.js`).then((answer) => answer.text());
  assert.ok(served === (await readFile(CLIENT, "utf8")), "the binary is older than web/client: ./test build");
});

test("every node dies while a page publishes and subscribes", { timeout: 180000 }, async (t) => {
  const stream = "browser-failover";
  await cluster.createStream(stream);
  const page = await browser.page(`${cluster.urls[0]}/failover.html`);
  const nodeMesh = connect({ nodes: cluster.urls });
  t.after(() => nodeMesh.close());
  const inNode = new Follower(nodeMesh, stream, { from: "earliest", until: EVENTS });
  await page.evaluate(([stream, options]) => window.traffic.run(stream, options), [stream, { events: EVENTS, perSecond: PER_SECOND, inFlight: IN_FLIGHT }]);

  const allow = (n) => page.evaluate((n) => void (window.traffic.allowed = n), n);
  const taken = () => page.evaluate(() => window.traffic.followers[0].report.taken);
  const spared = new Set(cluster.urls);
  for (const [round, how] of ROUNDS.entries()) {
    // Half of the round's events before the node dies, the others while it is away; the last ones wait until it is back.
    await allow((round + 1) * SHARE - 100);
    await until("half of the round's events are there", async () => (await taken()) >= (round + 0.5) * SHARE);
    const used = await page.evaluate(() => window.traffic.mesh.node);
    const victim = how === "stop" || spared.has(used) ? used : [...spared][0];
    spared.delete(victim);
    await cluster[how](victim);
    await until("events come without it", async () => (await taken()) >= (round + 0.75) * SHARE);
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
  console.log(`  slowest acknowledgement: ${ms(published.longestMs)}`);
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

test("a page comes back from the back/forward cache and goes on where it was", { timeout: 60000 }, async () => {
  const stream = "browser-bfcache";
  await cluster.createStream(stream);
  await cluster.call(0, "POST", `/v1/streams/${stream}/events`, { n: 1 });
  const page = await browser.page(`${cluster.urls[0]}/failover.html`);
  await page.evaluate((stream) => window.traffic.follow(stream, 3), stream);
  await until("the first event", () => page.evaluate(() => window.traffic.followers[0].report.taken === 1));
  await page.goto(`${cluster.urls[1]}/livez`);
  await cluster.call(0, "POST", `/v1/streams/${stream}/events`, { n: 2 });
  // Not `goBack`, which waits for a load that does not happen.
  await page.evaluate(() => void setTimeout(() => history.back()));
  await until("the page is shown again, as it was", () => page.evaluate(() => window.traffic?.pages === 1).catch(() => false));
  await cluster.call(0, "POST", `/v1/streams/${stream}/events`, { n: 3 });
  const report = await page.evaluate(() => window.traffic.followers[0].done);
  assert.deepEqual([report.taken, report.wrong, report.resumed], [3, [], 1]);
});

test("a page that was frozen goes on where it was", { timeout: 60000 }, async () => {
  const stream = "browser-frozen";
  await cluster.createStream(stream);
  await cluster.call(0, "POST", `/v1/streams/${stream}/events`, { n: 1 });
  const page = await browser.context.newPage();
  await page.goto(`${cluster.urls[0]}/failover.html`);
  await page.evaluate((stream) => window.traffic.follow(stream, 3), stream);
  await until("the first event", () => page.evaluate(() => window.traffic.followers[0].report.taken === 1));
  const devtools = await browser.context.newCDPSession(page);
  await devtools.send("Page.setWebLifecycleState", { state: "frozen" });
  await cluster.call(0, "POST", `/v1/streams/${stream}/events`, { n: 2 });
  await devtools.send("Page.setWebLifecycleState", { state: "active" });
  await cluster.call(0, "POST", `/v1/streams/${stream}/events`, { n: 3 });
  const report = await page.evaluate(() => window.traffic.followers[0].done);
  assert.deepEqual([report.taken, report.wrong, report.resumed], [3, [], 1]);
  await page.close();
});
