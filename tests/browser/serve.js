// Serves the pages of a test from this machine. Pages that playwright fulfils itself will not do: to Chromium they come from an unknown
// network, and may not open connections to this machine.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { extname } from "node:path";

const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8" };

/** Serves the files of a folder, and of `also`, which are texts by their paths: `{ "/evermesh.js": "…" }`. */
export async function serve(folder, also = {}) {
  const server = createServer(async (request, response) => {
    const { pathname } = new URL(request.url, "http://any");
    try {
      const body = also[pathname] ?? (await readFile(new URL(`.${pathname}`, folder)));
      const type = TYPES[extname(pathname)] ?? "application/octet-stream";
      // Any page may take modules from here, as it may from a node.
      response.writeHead(200, { "Content-Type": type, "Access-Control-Allow-Origin": "*" }).end(body);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    close() {
      server.closeAllConnections();
      return new Promise((closed) => server.close(closed));
    },
  };
}
