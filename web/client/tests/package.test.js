// What is handed out: how much the served file weighs, that the folder installs as a package, and that its types are true.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { connect } from "../evermesh.js";

const FOLDER = fileURLToPath(new URL("..", import.meta.url));
const GZIPPED_BYTES_MAX = 12 * 1024;

test("the served file weighs at most 12 KiB gzipped", (t) => {
  const bytes = gzipSync(readFileSync(join(FOLDER, "evermesh.js")), { level: 6 }).length;
  t.diagnostic(`evermesh.js: ${bytes} bytes gzipped`);
  assert.ok(bytes <= GZIPPED_BYTES_MAX, `${bytes} bytes`);
});

test("it needs nothing else", () => {
  const { dependencies = {}, peerDependencies = {} } = JSON.parse(readFileSync(join(FOLDER, "package.json")));
  assert.deepEqual({ ...dependencies, ...peerDependencies }, {});
  assert.doesNotMatch(readFileSync(join(FOLDER, "evermesh.js"), "utf8"), /^import |import\(/m);
});

test("the folder installs as a package, with its types and nothing that is ours alone", { timeout: 60000 }, (t) => {
  const project = mkdtempSync(join(tmpdir(), "evermesh-package-"));
  t.after(() => rmSync(project, { recursive: true, force: true }));
  const run = (command, ...args) => execFileSync(command, args, { cwd: project, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] });
  const [packed] = JSON.parse(run("npm", "pack", FOLDER, "--json", "--loglevel=error"));
  assert.deepEqual(packed.files.map(({ path }) => path).sort(), ["LICENSE", "evermesh.d.ts", "evermesh.js", "package.json"]);
  writeFileSync(join(project, "package.json"), '{ "private": true, "type": "module" }');
  run("npm", "install", "--offline", "--no-audit", "--no-fund", "--loglevel=error", packed.filename);
  assert.equal(run("node", "--input-type=module", "--eval", 'import * as all from "evermesh"; console.log(Object.keys(all).sort().join())').trim(), "EvermeshError,connect");

  // The types, with and without those of a browser.
  writeFileSync(join(project, "types.ts"), readFileSync(join(FOLDER, "tests/types.ts")));
  const tsc = join(createRequire(import.meta.url).resolve("typescript/package.json"), "../bin/tsc");
  for (const lib of ["ES2022", "ES2022,DOM"]) {
    try {
      run("node", tsc, "--noEmit", "--strict", "--target", "ES2022", "--module", "NodeNext", "--lib", lib, "types.ts");
    } catch (error) {
      assert.fail(`with ${lib}:\n${error.stdout}`);
    }
  }
});

test("every name that the types have is there, and every name that is there has a type", (t) => {
  const types = readFileSync(join(FOLDER, "evermesh.d.ts"), "utf8");
  class Silent {
    close() {}
  }
  const mesh = connect({ nodes: "http://a", WebSocket: Silent });
  t.after(() => mesh.close());
  const subscription = mesh.subscribe("orders");
  // What the two classes have for each other alone.
  const inner = new Set(["constructor", "emit", "sub", "retry", "handle", "begin", "isAnother", "started", "push", "gap", "fail", "finish"]);
  for (const [name, object] of Object.entries({ Mesh: mesh, Subscription: subscription })) {
    const [, body] = types.match(new RegExp(`^export interface ${name}\\b[^{]*\\{\\n([\\s\\S]*?)^\\}`, "m"));
    const declared = new Set([...body.matchAll(/^ {2}(?:readonly )?(\w+)[?<(:]/gm)].map(([, member]) => member));
    const there = new Set();
    for (let at = object; at !== Object.prototype; at = Object.getPrototypeOf(at)) Object.getOwnPropertyNames(at).forEach((key) => there.add(key));
    assert.deepEqual([...declared].sort(), [...there].filter((key) => !inner.has(key)).sort(), name);
  }
});
