// The console in a real browser on a real cluster: what a person sees and does, a node that dies before their eyes, what the page
// weighs, and that nothing of it is logged as an error or comes from another host.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { launch } from "./browser.js";
import { start } from "./cluster.js";

const WEIGHT_MAX = 300 * 1024;

let cluster;
let browser;
let page;
const weights = new Map(); // url -> bytes
const strangers = [];

before(async () => {
  cluster = await start({ nodes: 3 });
  browser = await launch({ viewport: { width: 1280, height: 900 } });
  page = await browser.page();
  page.setDefaultTimeout(15_000);
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.hostname !== "127.0.0.1") strangers.push(request.url());
  });
  page.on("requestfinished", async (request) => {
    const path = new URL(request.url()).pathname;
    if (path !== "/" && path !== "/evermesh.js" && !path.startsWith("/console/")) return;
    const sizes = await request.sizes();
    weights.set(request.url(), sizes.responseBodySize + sizes.responseHeadersSize);
  });
});

after(async () => {
  await browser?.close();
  await cluster?.end();
});

const publish = (stream, data, subject) =>
  fetch(`${cluster.urls[0]}/v1/streams/${stream}/events`, {
    method: "POST",
    headers: { "Content-Type": "application/json", ...(subject && { "Event-Subject": subject }) },
    body: JSON.stringify(data),
  }).then((answer) => assert.equal(answer.status, 201));

const says = (selector, text) => page.locator(selector, { hasText: text }).first().waitFor();

test("an empty cluster says how to begin, and the first event is published from the page", async () => {
  await page.goto(cluster.urls[0]);
  await says("h1", "Three nodes, one mesh");
  await page.locator(".canvas .u-over").first().waitFor();
  await page.getByRole("button", { name: "Publish the first event" }).click();
  await says("h1", "hello");
  await says(".line .data", '{"hello":"mesh"}');
});

test("it weighs what was agreed, and paints soon", async () => {
  const total = [...weights.values()].reduce((sum, each) => sum + each, 0);
  const paint = await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0]?.startTime);
  console.log(`# ${weights.size} files, ${(total / 1024).toFixed(1)} KiB, first contentful paint after ${Math.round(paint)} ms`);
  assert.ok(weights.size > 20, `${weights.size} files`);
  assert.ok(total <= WEIGHT_MAX, `${total} bytes`);
});

test("the list shows streams, finds them by prefix, and is walked with the keyboard", async () => {
  for (const name of ["alpha", "beta", "orders"]) await publish(name, { name });
  await page.keyboard.press("Escape");
  await says(".rows a", "orders");
  await page.keyboard.press("/");
  await page.keyboard.type("ord");
  await page.locator('.rows a:text-is("alpha")').waitFor({ state: "detached" });
  await page.locator("#find").fill("");
  await says(".rows a", "alpha");
  await page.locator('.rows a:text-is("alpha")').focus();
  for (const name of ["beta", "hello", "orders"]) {
    await page.keyboard.press("ArrowDown");
    await page.waitForFunction((wanted) => document.activeElement?.textContent === wanted, name);
  }
  await page.keyboard.press("Enter");
  await says("h1", "orders");
});

test("an event appears by itself; the filter, the past and an event's detail work", async () => {
  await says(".line .data", '{"name":"orders"}');
  await says(".flow", "live from");
  await publish("orders", { order: 1001 }, "orders.eu.created");
  await says(".line .data", '{"order":1001}');
  await publish("orders", { order: 1002 }, "orders.us.created");
  await says(".line .data", '{"order":1002}');
  await page.getByLabel("Subject filter").fill("orders.us.>");
  await page.keyboard.press("Enter");
  await says(".line .data", '{"order":1002}');
  assert.equal(await page.locator(".line").count(), 1);
  await page.getByLabel("Subject filter").fill("");
  await page.getByLabel("From where").selectOption("seq");
  await page.getByLabel("Seq").fill("2");
  await page.keyboard.press("Enter");
  await says(".line .seq", "2");
  await page.waitForFunction(() => document.querySelectorAll(".line").length === 2);
  await page.locator(".line", { hasText: "1001" }).click();
  await says(".detail dd", "orders.eu.created");
  await says(".detail pre", '"order": 1001');
});

test("the form publishes, and shows the same as a command", async () => {
  await page.getByLabel("Subject", { exact: true }).fill("orders.eu.paid");
  await page.getByLabel("Data", { exact: true }).fill('{"order": "it\'s paid"}');
  const command = await page.locator("form.publish pre").textContent();
  assert.match(command, /^curl http:\/\/127\.0\.0\.1:\d+\/v1\/streams\/orders\/events \\\n/);
  assert.ok(command.includes("-H 'Event-Subject: orders.eu.paid'"), command);
  assert.ok(command.endsWith(`--data-binary '{"order": "it'\\''s paid"}'`), command);
  await page.getByRole("button", { name: "Publish", exact: true }).click();
  await says("form.publish [role=status]", "stored as 4 in");
});

test("a leader is moved after a question that says what happens", async () => {
  const move = page.getByRole("button", { name: "Let it lead…" }).first();
  const to = await page.locator(".replica-list li", { has: move }).first().locator(".who").textContent();
  await move.click();
  await says("dialog h2", `Let ${to} lead orders?`);
  await page.getByRole("button", { name: `Let ${to} lead`, exact: true }).click();
  await page.locator("dialog").waitFor({ state: "detached" });
  await page.waitForFunction((name) => document.querySelector(".replica-list li:has(.dot.leads) .who")?.textContent === name, to);
});

test("a node that dies is seen to die, and to come back, also when it is the one that served the page", async () => {
  await page.goto(`${cluster.urls[0]}/#/`);
  await says("h1", "Three nodes, one mesh");
  await cluster.kill(cluster.urls[0]);
  await says("h1", "n1 is down");
  await page.locator('.node.down[data-node="n1"]').waitFor();
  assert.equal(await page.locator(".link.down").count(), 2);
  await says(".feed li", "n1 is gone");
  await says(".rows .leader", /^n[23]$/);
  await cluster.start(cluster.urls[0]);
  await says("h1", "Three nodes, one mesh");
  await says(".feed li", "n1 is back");
  assert.equal(await page.locator(".link.up").count(), 3);
});

test("a node in the picture is chosen with the keyboard, and tells what it is", async () => {
  await page.locator('.node[data-node="n2"]').focus();
  await page.keyboard.press("Enter");
  await says(".card h3", "n2");
  await page.getByRole("button", { name: "Drain…" }).click();
  await says("dialog h2", "Drain n2?");
  await page.keyboard.press("Escape");
  await page.locator("dialog").waitFor({ state: "detached" });
});

test("on a phone nothing is wider than the screen; dark is dark", async () => {
  await page.setViewportSize({ width: 375, height: 720 });
  for (const path of ["#/", "#/streams/orders"]) {
    await page.goto(`${cluster.urls[1]}/${path}`);
    await page.locator(path === "#/" ? ".rows a" : ".line").first().waitFor();
    assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 375, path);
  }
  await page.emulateMedia({ colorScheme: "dark" });
  const [red] = await page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor.match(/\d+/g).map(Number));
  assert.ok(red < 60, `${red}`);
});

test("nothing failed on the way, and nobody else was asked", () => {
  // That a node that was killed did not answer, or was not ready yet, is what the browser itself writes.
  assert.deepEqual(browser.errors.filter((error) => !/ERR_CONNECTION|ERR_EMPTY_RESPONSE|status of 503|WebSocket connection/.test(error)), []);
  assert.deepEqual(strangers, []);
});
