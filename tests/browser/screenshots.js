// Pictures of the console in every state, to be looked at: `node screenshots.js FOLDER [STATE…]`. $EVERMESH is the binary; with $PROXY
// the pages come from there instead of from the nodes, while somebody works on them. ONLY=REGEX makes some of a state's pictures.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { launch } from "./browser.js";
import { start } from "./cluster.js";
import { until } from "./nodes.js";
import { STREAMS, createStreams, traffic } from "./traffic.js";

const DESKTOP = { width: 1360, height: 1000 };
const PHONE = { width: 390, height: 844 };
const [folder, ...asked] = process.argv.slice(2);
if (!folder) throw new Error("say in which folder the pictures go");

const pause = (ms) => new Promise((go) => setTimeout(go, ms));

/** Pictures of one page: name -> { path, colorScheme, viewport, act }. */
async function shoot(url, pictures) {
  for (const [name, { path = "/", colorScheme = "light", viewport = DESKTOP, settleMs = 2500, act, fullPage = false }] of Object.entries(pictures)) {
    if (process.env.ONLY && !new RegExp(process.env.ONLY).test(name)) continue;
    const browser = await launch({ viewport, colorScheme, deviceScaleFactor: Number(process.env.SCALE ?? 1), isMobile: viewport === PHONE, hasTouch: viewport === PHONE });
    const page = await browser.page();
    await page.goto(url + path);
    await page.locator("h1").first().waitFor();
    await act?.(page);
    await pause(settleMs);
    await page.screenshot({ path: join(folder, `${name}.png`), fullPage });
    if (browser.errors.length > 0) console.log(name, browser.errors.slice(0, 3));
    await browser.close();
    console.log(name);
  }
}

async function withCluster(nodes, act) {
  const cluster = await start({ nodes, basePort: process.env.BASE_PORT && Number(process.env.BASE_PORT) });
  try {
    await act(cluster, process.env.PROXY ?? cluster.urls[0]);
  } finally {
    await cluster.end();
  }
}

const STATES = {
  empty: () => withCluster(3, (_, url) => shoot(url, { empty: {}, "empty-dark-phone": { colorScheme: "dark", viewport: PHONE, fullPage: true } })),
  one: () =>
    withCluster(1, async (cluster, url) => {
      const end = traffic(cluster.urls, { orders: 20, audit: 2 });
      await shoot(url, { one: { settleMs: 8000 } });
      await end();
    }),
  overview: () =>
    withCluster(3, async (cluster, url) => {
      const end = traffic(cluster.urls);
      await shoot(url, {
        "overview-light": { settleMs: 60_000 },
        "overview-dark": { settleMs: 60_000, colorScheme: "dark" },
        "overview-phone": { settleMs: 12_000, viewport: PHONE, fullPage: true },
        "node-card": { act: (page) => page.locator('[data-node="n2"]').click() },
        spotlight: { settleMs: 4000, act: (page) => page.locator(".rows a", { hasText: "orders" }).hover() },
        stream: { path: "/#/streams/orders", settleMs: 15_000, viewport: { width: 1360, height: 1080 } },
        "stream-dark-detail": {
          path: "/#/streams/orders",
          colorScheme: "dark",
          viewport: { width: 1360, height: 1200 },
          act: async (page) => {
            await page.getByLabel("From where").selectOption("start");
            await page.locator(".line").nth(3).click();
          },
        },
        "stream-phone": { path: "/#/streams/orders", viewport: PHONE, fullPage: true, settleMs: 6000 },
        move: { path: "/#/streams/orders", act: (page) => page.getByRole("button", { name: "Let it lead…" }).first().click() },
        slow: {
          settleMs: 900,
          act: async (page) => {
            const session = await page.context().newCDPSession(page);
            await session.send("Network.emulateNetworkConditions", { offline: false, latency: 600, downloadThroughput: 40_000, uploadThroughput: 20_000 });
            await page.reload({ waitUntil: "commit" });
            await pause(2500);
          },
        },
        "slow-later": {
          settleMs: 15_000,
          act: async (page) => {
            const session = await page.context().newCDPSession(page);
            await session.send("Network.emulateNetworkConditions", { offline: false, latency: 600, downloadThroughput: 40_000, uploadThroughput: 20_000 });
            await page.reload();
          },
        },
      });
      await end();
    }),
  five: () =>
    withCluster(5, async (cluster, url) => {
      const end = traffic(cluster.urls);
      const kill = (many) => async () => {
        await pause(16_000);
        // Whoever leads most, so that there is something to see; not the node that serves the page.
        const alive = (await cluster.call(0, "GET", "/v1/cluster")).nodes.filter((each) => each.reachable && each.url !== cluster.urls[0]);
        for (const { url } of alive.sort((a, b) => b.streams_led - a.streams_led).slice(0, many)) await cluster.kill(url);
      };
      await shoot(url, { five: { settleMs: 10_000 } });
      await shoot(url, { "node-down": { settleMs: 14_000, act: kill(1) } });
      await shoot(url, { "node-down-stream": { path: "/#/streams/orders", settleMs: 5000 } });
      await shoot(url, { "no-quorum": { settleMs: 14_000, act: kill(2), colorScheme: "dark" } });
      await end();
    }),
  long: () =>
    withCluster(3, async (cluster, url) => {
      const name = `warehouse.${"a-very-long-name-that-somebody-really-gave-to-a-stream.".repeat(3)}`.slice(0, 128);
      const end = traffic(cluster.urls, { [name]: 20, short: 4 });
      await until(`${name} is there`, async () => (await fetch(`${cluster.urls[0]}/v1/streams/${name}`)).ok);
      await shoot(url, { long: { settleMs: 6000 }, "long-stream": { path: `/#/streams/${name}` }, "long-phone": { path: `/#/streams/${name}`, viewport: PHONE } });
      await end();
    }),
  many: () =>
    withCluster(3, async (cluster, url) => {
      // As many as a cluster may have, but for those of the traffic.
      if (!process.env.PROXY) await createStreams(cluster.urls, 9_980);
      const end = traffic(cluster.urls, { ...STREAMS, "site-00003.readings": 12, "site-00007.readings": 80 });
      await shoot(url, {
        many: { settleMs: 10_000, act: (page) => page.locator(".rows").evaluate((rows) => (rows.scrollTop = 0)) },
        "many-end": { settleMs: 6000, act: async (page) => (await page.locator(".rows a").first().waitFor(), await page.locator(".rows").evaluate((rows) => (rows.scrollTop = rows.scrollHeight))) },
      });
      await frames(url);
      await end();
    }),
  frames: () =>
    withCluster(3, async (cluster, url) => {
      const end = traffic(cluster.urls, STREAMS);
      await frames(url, cluster);
      await end();
    }),
};

/** Times between frames: while the list is scrolled, and while 2,000 events a second come in. */
async function frames(url) {
  const browser = await launch({ viewport: DESKTOP });
  const page = await browser.page(url);
  await page.locator(".rows a").first().waitFor();
  const measure = (scroll) =>
    page.evaluate(async (scrolls) => {
      const rows = document.querySelector(".rows");
      const times = [];
      const long = [];
      new PerformanceObserver((list) => long.push(...list.getEntries().map((entry) => entry.duration))).observe({ type: "longtask" });
      let last = await new Promise(requestAnimationFrame);
      const until = last + 10_000;
      while (last < until) {
        if (scrolls && rows) rows.scrollTop = (rows.scrollTop + 90) % (rows.scrollHeight - rows.clientHeight || 1);
        const now = await new Promise(requestAnimationFrame);
        times.push(now - last);
        last = now;
      }
      times.sort((a, b) => a - b);
      const at = (share) => Number(times[Math.floor((times.length - 1) * share)].toFixed(1));
      return { frames: times.length, p50: at(0.5), p95: at(0.95), p99: at(0.99), longest: at(1), longTasks: long.length, longestTask: Math.round(Math.max(0, ...long)) };
    }, scroll);
  await pause(3000);
  console.log("overview, still", JSON.stringify(await measure(false)));
  console.log("overview, list scrolled", JSON.stringify(await measure(true)));
  const end = traffic([new URL(url).origin], { firehose: 2000 });
  await pause(2000);
  await page.goto(`${url}/#/streams/firehose`);
  await page.locator(".line").first().waitFor();
  await pause(3000);
  console.log("a stream at 2,000 events/s", JSON.stringify(await measure(false)), await page.locator(".figures .grow dd").textContent());
  await page.screenshot({ path: join(folder, "firehose.png") });
  await end();
  await browser.close();
}

await mkdir(folder, { recursive: true });
for (const state of asked.length > 0 ? asked : Object.keys(STATES)) {
  if (!STATES[state]) throw new Error(`there is no state ${state}; there are ${Object.keys(STATES).join(", ")}`);
  await STATES[state]();
}
