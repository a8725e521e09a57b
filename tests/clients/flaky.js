// flaky.js NODE…: one proxy before each node, that does to a client what a bad day does, always at the same places: node flaky.js URL…
//
// - Of the publishes, some are answered 503 at first and do not reach the node; some reach it, and are answered 504 at first.
// - The first read of each path is answered 503.
// - The first two live connections are cut off after some bytes, wherever that is.
//
// Prints the addresses of the proxies, with commas between them, and ends when its input does.
import { createServer, request } from "node:http";
import { connect } from "node:net";

const CUT_AFTER_BYTES = [700, 1100];
let live = 0;
const seen = new Map();

/** How often this was seen before, and how many others before it. */
function count(key) {
  const entry = seen.get(key) ?? { times: 0, place: seen.size };
  seen.set(key, { ...entry, times: entry.times + 1 });
  return entry;
}

function refuse(answer, status, code) {
  const problem = { type: `/problems/${code}`, title: code, status, detail: "the proxy says so", code, retryable: true, retry_after_ms: 100 };
  answer.writeHead(status, { "content-type": "application/problem+json", "access-control-allow-origin": "*" });
  answer.end(JSON.stringify(problem));
}

/** Sends the request on; with `answer`, the node's answer goes back. Resolves when the node has answered. */
function forward(node, asked, body, answer) {
  return new Promise((done) => {
    const onward = request(node + asked.url, { method: asked.method, headers: asked.headers }, (back) => {
      if (!answer) return back.resume().on("end", done);
      answer.writeHead(back.statusCode, back.headers);
      if (isLive(asked)) cut(back, answer);
      else back.pipe(answer);
      done();
    });
    onward.on("error", () => answer?.destroy());
    answer?.on("close", () => onward.destroy());
    onward.end(body);
  });
}

const isLive = ({ method, url, headers }) =>
  method === "GET" && (headers.accept === "text/event-stream" || /[?&]wait=/.test(url) || Boolean(headers.upgrade));

/** Passes on what comes, up to the byte where this connection ends. */
function cut(from, to) {
  let left = CUT_AFTER_BYTES[live++] ?? Infinity;
  from.on("data", (bytes) => {
    to.write(bytes.subarray(0, left));
    left -= bytes.length;
    if (left <= 0) {
      from.destroy();
      setTimeout(() => (to.socket ?? to).destroy(), 50); // what was written goes out first
    }
  });
  from.on("end", () => to.end());
  from.on("error", () => to.destroy());
}

async function handle(node, asked, answer) {
  const chunks = [];
  for await (const chunk of asked) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (asked.method === "POST") {
    const { times, place } = count(asked.headers["event-id"] ?? asked.headers["ce-id"] ?? body.toString());
    if (times === 0 && place % 4 === 1) return refuse(answer, 503, "overloaded");
    if (times === 0 && place % 4 === 3) return forward(node, asked, body).then(() => refuse(answer, 504, "outcome-unknown"));
  }
  if (asked.method === "GET" && !isLive(asked) && count(asked.url + asked.headers.accept).times === 0) return refuse(answer, 503, "overloaded");
  return forward(node, asked, body, answer);
}

/** A WebSocket: bytes both ways. */
function upgrade(node, asked, socket, head) {
  const { hostname, port } = new URL(node);
  const onward = connect(Number(port), hostname, () => {
    const headers = Object.entries(asked.headers).map(([name, value]) => `${name}: ${value}\r\n`);
    onward.write(`${asked.method} ${asked.url} HTTP/1.1\r\n${headers.join("")}\r\n`);
    onward.write(head);
    socket.pipe(onward);
    cut(onward, socket);
  });
  onward.on("error", () => socket.destroy());
  socket.on("error", () => onward.destroy());
  socket.on("close", () => onward.destroy());
}

async function listen(node) {
  const server = createServer((asked, answer) => handle(node, asked, answer).catch(() => answer.destroy()));
  server.on("upgrade", (asked, socket, head) => upgrade(node, asked, socket, head));
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  return `http://127.0.0.1:${server.address().port}`;
}

console.log((await Promise.all(process.argv.slice(2).map(listen))).join(","));
process.stdin.resume().on("end", () => process.exit());
