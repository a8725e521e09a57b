// What an operator does to the mesh. Each is asked about first, with what will happen and the command that does the same.

import { node, post, streamPath } from "./api.js";
import { mesh } from "./cluster.js";
import { host, plural, quoted } from "./format.js";
import { Cell, Command, html, useCell, useEffect, useRef, useState } from "./view.js";

/** The question that is open: { title, text: […], command, confirm?, act? }, or `null`. */
const question = new Cell(null);

export function moveLeader(stream, from, to) {
  question.value = {
    title: `Let ${to} lead ${stream}?`,
    text: [
      `${from ?? "The leader"} hands the leadership over once ${to} is up to date. Publishes that arrive meanwhile wait for some milliseconds; none is lost or refused.`,
      `${to} is the stream's preferred leader from then on.`,
    ],
    command: `evermesh stream move-leader ${quoted(stream)} ${quoted(to)} --server ${node()}`,
    confirm: `Let ${to} lead`,
    act: () => post(`${streamPath(stream)}/leader`, { node: to }),
  };
}

export function drain({ name, streams_led: led, streams_held: held }) {
  question.value = {
    title: `Drain ${name}?`,
    text: [
      `${name} hands over the ${plural(led, "stream")} that it leads, and where other nodes have room they take over the ${plural(held, "replica")} that it holds. Its clients are told to go to other nodes, spread over a few seconds.`,
      `It stays in the cluster. Stop it when it leads nothing; a restart ends the draining.`,
    ],
    command: `evermesh cluster drain ${quoted(name)} --server ${node()}`,
    confirm: `Drain ${name}`,
    act: () => post(`/v1/cluster/nodes/${encodeURIComponent(name)}/drain`),
  };
}

export function drill() {
  const urls = (mesh.value?.nodes ?? []).filter((each) => each.status !== "down").map((each) => each.url);
  const servers = urls.length > 0 ? urls.join(",") : node();
  question.value = {
    title: "Run a failover drill",
    text: [
      "The drill makes a stream of its own, publishes to it and follows it on every node, and moves its leader five times meanwhile. Then it says how many events were acknowledged, lost or doubled, and the longest time without an acknowledgement. Other streams are left alone.",
      "It runs where you type it. With --kill leader it also ends a node's process and starts it again; that needs the folder of an evermesh dev.",
    ],
    command: `evermesh drill --server ${servers}`,
  };
}

export function Dialog() {
  const asked = useCell(question);
  const box = useRef();
  const [state, setState] = useState({});
  useEffect(() => {
    setState({});
    if (asked && !box.current.open) box.current.showModal();
  }, [asked]);
  if (!asked) return null;
  const close = () => box.current.close();
  const act = async () => {
    setState({ busy: true });
    try {
      await asked.act();
      close();
    } catch (error) {
      setState({ failed: error.message });
    }
  };
  return html`<dialog ref=${box} aria-labelledby="question" onClose=${() => (question.value = null)} onClick=${(click) => click.target === box.current && close()}>
    <div class="question">
      <h2 id="question">${asked.title}</h2>
      ${asked.text.map((text) => html`<p>${text}</p>`)}
      <${Command} text=${asked.command} label="The command" />
      <div class="acts">
        <span role="status" class="bad">${state.failed ?? ""}</span>
        <button type="button" class="button" onClick=${close}>${asked.act ? "Cancel" : "Close"}</button>
        ${asked.act && html`<button type="button" class="main-button" disabled=${state.busy} onClick=${act}>${asked.confirm}</button>`}
      </div>
    </div>
  </dialog>`;
}

/** What is known of the node that was chosen in the picture, and what can be done with it. */
export function NodeCard({ node: each, aside, onClose }) {
  const last = (mesh.value?.alive ?? 0) <= 1;
  return html`<aside class=${`card ${aside}`} aria-label=${`Node ${each.name}`}>
    <div class="card-head"><h3>${each.name}</h3><button type="button" class="quiet-button" onClick=${onClose} aria-label="Close">✕</button></div>
    <dl>
      <dt>Address</dt><dd><a href=${each.url} target="_blank" rel="noopener">${host(each.url)}</a></dd>
      <dt>State</dt><dd>${each.status === "down" ? "down" : each.state}${each.missing.length > 0 && each.status !== "down" ? `, not reached by ${each.missing.join(", ")}` : ""}</dd>
      <dt>Leads</dt><dd>${each.status === "down" ? "–" : `${plural(each.streams_led, "stream")} of ${each.streams_held} held`}</dd>
      <dt>Behind</dt><dd>${plural(each.behind, "replica")}</dd>
      ${each.replicas_damaged + each.replicas_rebuilding > 0 && html`<dt>Damaged</dt><dd>${each.replicas_damaged}, rebuilding ${each.replicas_rebuilding}</dd>`}
      <dt>Disk</dt><dd>${each.disk}</dd>
      <dt>Version</dt><dd>${each.version}</dd>
    </dl>
    <div class="acts"><button type="button" class="button" disabled=${last || each.state !== "active"} onClick=${() => drain(each)}>Drain…</button></div>
  </aside>`;
}
