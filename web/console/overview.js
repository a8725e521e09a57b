// The first page: the mesh, how it is, what it carries, what happened, and its streams.

import { NodeCard, drill } from "./actions.js";
import { happenings, mesh, rates } from "./cluster.js";
import { clock, lasting, plural, shorten, word } from "./format.js";
import { Mesh, says, spotlight } from "./mesh.js";
import { Plots } from "./plots.js";
import { Streams } from "./streams.js";
import { html, useCell, useState } from "./view.js";

export function Overview() {
  const now = useCell(mesh);
  const [selected, setSelected] = useState(null);
  const node = now?.nodes.find((each) => each.name === selected);
  return html`<main class="overview">
    <section class=${`sheet hero ${now?.silentSince ? "stale" : ""}`} aria-labelledby="state">
      <div class="statement">${statement(now)}</div>
      ${now?.known ? html`<${Mesh} selected=${selected} onSelect=${setSelected} />` : html`<div class="mesh"></div>`}
      <${Legend} />
      ${node && html`<${NodeCard} node=${node} aside=${isRight(now.nodes, node) ? "left" : ""} onClose=${() => setSelected(null)} />`}
      <p class="unseen" aria-live="polite">${now?.known ? now.nodes.map((each) => `${each.name} ${each.status}`).join(", ") : ""}</p>
    </section>
    <div class="column">
      <section class="sheet" aria-labelledby="rates-title">
        <div class="head"><h2 id="rates-title">What it carries</h2><span class="tally">${counting(now)}</span></div>
        <${Plots} />
      </section>
      <section class="sheet happened" aria-labelledby="happened-title">
        <div class="head"><h2 id="happened-title">What happened</h2><button type="button" class="quiet-button" onClick=${drill}>Run a drill…</button></div>
        <${Happened} />
      </section>
    </div>
    <${Streams} />
  </main>`;
}

/** Whether the picture has the node at its right: its card is then at the left. */
function isRight(nodes, node) {
  const at = nodes.indexOf(node);
  return nodes.length === 2 ? at === 1 : at > 0 && at < nodes.length / 2;
}

/** What the signs of the picture mean; of a stream that is pointed at, who has it. */
function Legend() {
  const stream = useCell(spotlight);
  if (stream) {
    const others = stream.replicas.map((each) => each.node).filter((name) => name !== stream.leader);
    return html`<p class="legend" aria-hidden="true"><span><b>${shorten(stream.name, 48)}</b>${stream.leader ? `led by ${stream.leader}` : "led by nobody"}${others.length > 0 ? `, copied to ${others.join(", ")}` : ""}</span></p>`;
  }
  return html`<p class="legend" aria-hidden="true"><span><i class="ring"></i>share of streams led</span><span><i class="diamond"></i>leads the catalog</span><span><i class="dot good"></i>events published</span></p>`;
}

/** Whose counters the rates are: those of nodes that this page reaches. */
function counting(now) {
  const [known, all] = [rates.value?.nodes.size ?? 0, now?.nodes.length ?? 0];
  return known === 0 ? "" : `${known === all ? (all === 1 ? "one node" : `all ${all} nodes`) : `${known} of ${all} nodes`}, 3 minutes`;
}

/** How the mesh is, in a sentence and a line. */
function statement(now) {
  const [tone, title, line] = state(now);
  return html`<h1 id="state" class=${tone}>${title}</h1><p class="hush">${line}</p>`;
}

export function state(now) {
  if (!now) return ["", "Asking the node…", ""];
  if (!now.known || now.silentSince) {
    return ["bad", "No node answers", `for ${lasting(Date.now() - now.silentSince)}. ${now.known ? "This is the last that was heard." : "Trying again."}`];
  }
  const all = now.nodes.length;
  const down = now.nodes.filter((each) => each.status === "down");
  const names = (nodes) => nodes.map((each) => each.name).join(", ");
  if (!now.quorum) return ["bad", "No quorum", `${word(now.alive)} of ${plural(all, "node")} ${now.alive === 1 ? "is" : "are"} left. What was acknowledged is safe. Nothing is created or moved, and streams without a majority of their replicas wait, until enough of ${names(down)} are back.`];
  if (down.length > 0) return ["bad", down.length === 1 ? `${down[0].name.length > 24 ? "A node" : down[0].name} is down` : `${word(down.length)} nodes are down`, `The other ${now.alive} carry on, and every acknowledged event is still there.`];
  const of = (status) => now.nodes.filter((each) => each.status === status);
  if (of("partly").length > 0) return ["warn", "Some nodes do not reach each other", of("partly").map((each) => `${each.name} ${says(each)}`).join("; ")];
  const sick = now.nodes.filter((each) => each.replicas_damaged + each.replicas_rebuilding > 0);
  if (sick.length > 0) return ["warn", "Replicas are being repaired", `on ${names(sick)}; the others serve meanwhile.`];
  if (of("draining").length > 0) return ["warn", `${names(of("draining"))} drains`, "Its streams move to the other nodes."];
  const full = now.nodes.filter((each) => each.disk !== "ok");
  if (full.length > 0) return ["warn", "A disk has little room", `on ${names(full)}.`];
  const behind = now.nodes.filter((each) => each.behind > 0);
  if (behind.length > 0) return ["warn", "Replicas are catching up", `on ${names(behind)}.`];
  const { streams = now.streams, leaderless = 0 } = rates.value ?? {};
  if (leaderless > 0) return ["warn", "Leaders are being chosen", `${plural(leaderless, "stream")} ${leaderless === 1 ? "has" : "have"} none at this moment; publishes to them wait.`];
  if (all === 1) return ["good", "One node, on its own", `It leads ${plural(streams, "stream")}. With two more, a node may die and nothing stops.`];
  return ["good", `${word(all)} nodes, one mesh`, `Everything is whole: ${streams === 0 ? "nothing to lead yet" : `${plural(streams, "stream")}, each with a leader`}. Catalog led by ${now.catalogLeader ?? "nobody"}.`];
}

function Happened() {
  const all = useCell(happenings);
  if (all.length === 0) return html`<p class="hush pad">Nothing since this page was opened. A node that comes, goes or takes over is told here.</p>`;
  return html`<ol class="feed">${all.map(({ at, kind, text }, index) => html`<li key=${all.length - index}><time>${clock(at)}</time><i class=${`dot ${kind}`}></i><span>${text}</span></li>`)}</ol>`;
}
