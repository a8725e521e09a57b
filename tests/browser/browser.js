// Starts Debian's Chromium for a test: a profile of its own that is deleted afterwards, no request to any other host, and every
// error of a page kept. `const browser = await launch(); const page = await browser.page(url); … await browser.close();`

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { chromium } from "playwright-core";

// Pages come from this machine alone, so the sandbox guards nothing here, and it does not start where the tests run as root.
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"];

/**
 * @param {object} [options] what playwright's `launchPersistentContext` takes (`viewport`, `colorScheme`, `deviceScaleFactor`, …), and
 * @param {string} [options.executablePath] default: $CHROMIUM, or `/usr/bin/chromium`
 * @param {boolean} [options.bfcache] keep the back/forward cache on, which playwright switches off
 */
export async function launch({ bfcache = false, args = [], ...options } = {}) {
  const profile = await mkdtemp(join(tmpdir(), "evermesh-browser-"));
  const forget = () => rm(profile, { recursive: true, force: true, maxRetries: 5 });
  try {
    const context = await chromium.launchPersistentContext(profile, {
      executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
      headless: true,
      chromiumSandbox: false,
      args: [...FLAGS, ...args],
      ignoreDefaultArgs: bfcache ? ["--disable-back-forward-cache"] : [],
      ...options,
    });
    return new Browser(context, forget);
  } catch (error) {
    await forget();
    throw error;
  }
}

class Browser {
  /** What went wrong in any page: uncaught errors and lines of `console.error`. */
  errors = [];
  #forget;

  constructor(context, forget) {
    /** Playwright's `BrowserContext`, for what is not here. */
    this.context = context;
    this.#forget = forget;
  }

  /** Opens a page; the first one is the window that Chromium opened by itself. */
  async page(url) {
    const blank = this.context.pages().find((page) => page.url() === "about:blank");
    const page = blank ?? (await this.context.newPage());
    page.on("pageerror", (error) => this.errors.push(String(error.stack ?? error)));
    page.on("console", (message) => message.type() === "error" && this.errors.push(message.text()));
    if (url) await page.goto(url);
    return page;
  }

  /** The browser's version, for a report. */
  get version() {
    return this.context.browser()?.version() ?? "unknown";
  }

  async close() {
    await this.context.close();
    await this.#forget();
  }
}
