// Events as a small company has them, for pictures and measurements: several streams, each at a rate of its own.

const REGIONS = ["eu", "us", "ap"];
const KINDS = ["created", "paid", "packed", "shipped"];

export const STREAMS = { orders: 90, "payments.card": 42, "sensors.floor-1": 260, "sensors.floor-2": 180, "web.clicks": 140, audit: 6, "mail.outgoing": 12 };

const pick = (of) => of[Math.floor(Math.random() * of.length)];

export function event(stream, number) {
  if (stream.startsWith("sensors")) return { subject: `${stream.split(".")[1]}.t${number % 24}`, data: { celsius: Number((18 + 6 * Math.random()).toFixed(2)), battery: 90 - (number % 40) } };
  if (stream === "web.clicks") return { subject: `shop.${pick(["cart", "home", "search"])}`, data: { session: (number * 7919) % 99991, page: pick(["/", "/cart", "/search?q=mesh"]) } };
  return { subject: `${stream.split(".")[0]}.${pick(REGIONS)}.${pick(KINDS)}`, data: { order: 10_000 + number, total: Number((5 + Math.random() * 200).toFixed(2)), currency: pick(["EUR", "USD"]) } };
}

/** Publishes and follows until the function that it gives is called; through the nodes in turn, whoever answers. */
export function traffic(urls, rates = STREAMS) {
  let ended = false;
  const streams = Object.entries(rates).map(async ([stream, rate], at) => {
    const everyMs = Math.max(50, 1000 / rate);
    let number = 0;
    let due = 0;
    let last = Date.now();
    let turn = at;
    while (!ended) {
      const now = Date.now();
      // A tide, so that the lines in the pictures are not straight.
      due += (rate * (now - last) * (1 + 0.45 * Math.sin(now / 9000 + at) + 0.25 * (Math.random() - 0.5))) / 1000;
      last = now;
      const count = Math.min(1000, Math.floor(due));
      due -= count;
      if (count > 0) {
        const events = Array.from({ length: count }, () => event(stream, (number += 1)));
        const body = JSON.stringify({ events });
        const headers = { "Content-Type": "application/json" };
        await fetch(`${urls[turn % urls.length]}/v1/streams/${stream}/batch`, { method: "POST", headers, body, signal: AbortSignal.timeout(12_000) }).then(
          (answer) => answer.arrayBuffer(),
          () => (turn += 1),
        );
      }
      await new Promise((next) => setTimeout(next, everyMs));
    }
  });
  const stop = new AbortController();
  const readers = Object.keys(rates).map((stream, at) => read(urls[(at + 1) % urls.length], stream, stop.signal));
  return async () => {
    ended = true;
    stop.abort();
    await Promise.all([...streams, ...readers]);
  };
}

/** Follows a stream until it is told to stop, and begins anew where the node goes. */
async function read(url, stream, signal) {
  while (!signal.aborted) {
    try {
      const answer = await fetch(`${url}/v1/streams/${stream}/events`, { headers: { Accept: "text/event-stream" }, signal });
      for await (const _ of answer.body ?? []);
    } catch {
      // The node is away, or the stream is not there yet.
    }
    await new Promise((next) => setTimeout(next, 500));
  }
}

/** Creates `count` streams, 32 at a time. */
export async function createStreams(urls, count, name = (at) => `site-${String(at).padStart(5, "0")}.readings`) {
  let next = 0;
  const worker = async (of) => {
    while (next < count) {
      const at = next++;
      for (let tries = 0; tries < 50; tries += 1) {
        const answer = await fetch(`${urls[of % urls.length]}/v1/streams/${name(at)}`, { method: "PUT" }).catch(() => null);
        await answer?.arrayBuffer();
        if (answer?.ok) break;
        await new Promise((again) => setTimeout(again, 200));
      }
    }
  };
  await Promise.all(Array.from({ length: 32 }, (_, of) => worker(of)));
}
