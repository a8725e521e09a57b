// page.js FILE STREAM: opens a page of examples/clients in Chromium, with the nodes of $EVERMESH_SERVER, and prints the ten lines that it
// shows. The page comes from a server of its own: as for any page that is not a node's, its requests go to another origin.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { launch } from "../browser/browser.js";

const [file, stream] = process.argv.slice(2);
const html = await readFile(file);
const server = createServer((_, answer) => answer.setHeader("content-type", "text/html").end(html));
await new Promise((done) => server.listen(0, "127.0.0.1", done));

const browser = await launch();
try {
  const query = new URLSearchParams({ stream, nodes: process.env.EVERMESH_SERVER });
  const page = await browser.page(`http://127.0.0.1:${server.address().port}/?${query}`);
  const lines = page.locator("#events li");
  await lines.nth(9).waitFor({ timeout: 45_000 });
  for (const line of await lines.allTextContents()) console.log(line);
} finally {
  await browser.close();
  server.close();
}
