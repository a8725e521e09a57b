// Publishes ten orders with Evermesh's own client, and follows the stream until it has read ten: node with-client.js STREAM
// It finds the other nodes by itself, sends again what was not acknowledged, and resumes behind the last event: nothing to do here.
import { WebSocket } from "ws"; // Browsers and Node 22 have one of their own.
import { connect } from "../../../web/client/evermesh.js"; // In a page: import { connect } from "/evermesh.js"

const nodes = (process.env.EVERMESH_SERVER ?? "http://127.0.0.1:4701,http://127.0.0.1:4702,http://127.0.0.1:4703").split(",");
const [stream] = process.argv.slice(2);
const mesh = connect({ nodes, WebSocket: globalThis.WebSocket ?? WebSocket });

const orders = Array.from({ length: 10 }, (_, n) => ({ order: n + 1 }));
await Promise.all(orders.map((order) => mesh.publish(stream, order, { id: `${stream}-${order.order}` })));

let read = 0;
for await (const event of mesh.subscribe(stream, { from: "earliest" })) {
  console.log(event.seq, JSON.stringify(event.data));
  if (++read === 10) break;
}
mesh.close();
