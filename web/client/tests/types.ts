// How the client is used, as TypeScript sees it; compiled by package.test.js, never run. What must not compile says so.

import { connect, EvermeshError, type Event, type Gap, type Mesh, type State } from "evermesh";

interface Order {
  order: number;
}

const mesh: Mesh = connect({ nodes: ["http://127.0.0.1:4701", { href: "http://127.0.0.1:4702" }], discover: false, timeoutMs: 1000 });
connect("http://127.0.0.1:4701");
connect(["http://127.0.0.1:4701"], { onState: (state: State, node: string) => `${state} ${node}` });
connect({ nodes: "http://127.0.0.1:4701", WebSocket: class { constructor(readonly url: string, readonly protocol: string) {} } });
// @ts-expect-error: a node is needed
connect({});
// @ts-expect-error: an option that there is not
connect({ nodes: "http://127.0.0.1:4701", reconnect: true });

export async function use(): Promise<number> {
  const { seq, duplicate } = await mesh.publish("orders", { order: 1 }, { subject: "orders.eu", id: "o-1", expectedLastSeq: 0 });
  const batch = await mesh.publishBatch("orders", [{ data: 1 }, { data: new Uint8Array(4), contentType: "image/png" }]);
  // @ts-expect-error: a batch answers with the first and the last
  batch.seq;
  const known: boolean = duplicate;

  const off: () => void = mesh.on("state", ({ state, previous, node, error }) => [state, previous, node, error?.code, known]);
  mesh.on("nodes", (nodes) => nodes.map(({ name, url }) => `${name} ${url}`));
  // @ts-expect-error: an event that there is not
  mesh.on("opened", () => {});
  off();

  const subscription = mesh.subscribe<Order>("orders", { from: "earliest", subject: "orders.>", credit: 10 }, async (event) => {
    const order: number = event.data.order;
    return [order, event.seq, event.time, event.headers?.["k"]];
  });
  subscription.on("gap", (gap: Gap) => gap.to - gap.from);
  subscription.on("subscribed", ({ from, node, resumed }) => [from, node, resumed]);
  mesh.subscribe("orders", (event: Event) => event.data);
  mesh.subscribe("orders", { from: new Date() });
  // @ts-expect-error: a filter is called subject
  mesh.subscribe("orders", { filter: "orders.>" });
  for await (const event of mesh.subscribe<Order>("orders", { from: (subscription.lastSeq ?? 0) + 1 })) {
    if (event.data.order > 3) break;
  }
  await subscription.ended.catch((error: unknown) => error instanceof EvermeshError && [error.code, error.problem.status, error.eventId]);
  subscription.close();
  mesh.close();
  return seq + batch.last_seq + mesh.pending + subscription.held;
}
